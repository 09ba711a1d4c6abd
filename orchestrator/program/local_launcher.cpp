#include "orchestrator/program/local_launcher.h"

#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "core/clock.h"
#include "core/log.h"

namespace ecopipe {
namespace {

std::string program_beside_this_one(const char* name) {
    std::error_code error;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
    return (self.parent_path() / name).string();
}

pid_t spawn(const std::vector<std::string>& arguments, int core) {
    std::vector<char*> argv;
    for (const std::string& argument : arguments)
        argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child != 0) return child;
    // In the child only what is safe between fork and exec.
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    ::setpgid(0, 0);  // Ctrl-C reaches the portal, which tells the stages
    if (core >= 0) {
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET(static_cast<std::size_t>(core), &cores);
        ::sched_setaffinity(0, sizeof cores, &cores);
    }
    ::execv(argv[0], argv.data());
    ::_exit(127);
}

std::string how_it_ended(int status) {
    if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
    return fmt::format("ended with code {}", WEXITSTATUS(status));
}

}  // namespace

LocalLauncher::~LocalLauncher() { stop(0); }

Result<void> LocalLauncher::start(const Endpoint& portal, const std::vector<LocalStage>& stages,
                                  const std::string& models_directory, const Security& security,
                                  const std::string& log_level) {
    const std::string program = program_beside_this_one("ecopipe-stage");
    if (::access(program.c_str(), X_OK) != 0)
        return fail(ExitCode::kRunFailed,
                    program + ": is not there; --local needs it beside ecopipe-train");
    for (const LocalStage& stage : stages) {
        std::vector<std::string> arguments{program,
                                           "--join",
                                           portal.text(),
                                           "--name",
                                           stage.device,
                                           "--threads",
                                           std::to_string(stage.threads),
                                           "--models",
                                           models_directory,
                                           "--log-level",
                                           log_level};
        if (security.keys) {  // this machine's own, so that a stage may have any name
            arguments.insert(arguments.end(), {"--keys", security.keys->directory(), "--portal",
                                               security.keys->own().name});
        }
        if (stage.slowdown > 1) {
            arguments.emplace_back("--slowdown");
            arguments.push_back(fmt::format("{}", stage.slowdown));
        }
        if (!stage.memory_budget.empty()) {
            arguments.emplace_back("--memory-budget");
            arguments.push_back(stage.memory_budget);
        }
        for (const auto& [peer, link] : stage.links) {
            arguments.emplace_back("--link");
            arguments.push_back(fmt::format("{}={}/{}", peer, link.mbps, link.latency_ms));
        }
        const pid_t child = spawn(arguments, stage.core);
        if (child < 0)
            return fail(ExitCode::kRunFailed, "cannot start a process for device " + stage.device);
        processes_[stage.device] = child;
        log_debug("device {} is process {}", stage.device, child);
    }
    return {};
}

Result<void> LocalLauncher::check() {
    const auto gone = ended();
    if (gone.empty()) return {};
    return fail(ExitCode::kUnreachable,
                fmt::format("device {}: its process {}", gone.front().first, gone.front().second));
}

std::vector<std::pair<std::string, std::string>> LocalLauncher::ended() {
    std::vector<std::pair<std::string, std::string>> gone;
    std::erase_if(processes_, [&](const auto& entry) {
        int status = 0;
        if (::waitpid(entry.second, &status, WNOHANG) != entry.second) return false;
        gone.emplace_back(entry.first, how_it_ended(status));
        return true;
    });
    return gone;
}

void LocalLauncher::stop(double patience_s) {
    constexpr double kTermPatienceS = 3;
    const auto reap_until = [&](Instant deadline) {
        while (!processes_.empty()) {
            std::erase_if(processes_, [](const auto& entry) {
                return ::waitpid(entry.second, nullptr, WNOHANG) != 0;
            });
            if (processes_.empty() || monotonic_now() >= deadline) return;
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    };
    reap_until(monotonic_now() + from_ms(patience_s * 1000));
    for (const auto& [device, process] : processes_) {
        ::kill(process, SIGTERM);
        ::kill(process, SIGCONT);  // one that hangs stopped could not hear it
    }
    reap_until(monotonic_now() + from_ms(kTermPatienceS * 1000));
    for (const auto& [device, process] : processes_) ::kill(process, SIGKILL);
    for (const auto& [device, process] : processes_) ::waitpid(process, nullptr, 0);
    processes_.clear();
}

namespace {

// A device with a profile of its own is what this machine is.
double slowdown_of(const Device& device) {
    return device.profile.empty() ? std::max(1.0, 1.0 / device.speed) : 1.0;
}

}  // namespace

std::vector<LocalStage> local_stages(const Cluster& cluster) {
    const auto cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    std::vector<LocalStage> stages;
    double speeds = 0;
    for (std::size_t i = 0; i < cluster.devices.size(); ++i) {
        const Device& device = cluster.devices[i];
        LocalStage stage;
        stage.device = device.name;
        stage.threads = device.threads;
        const double speed = device.profile.empty() ? device.speed : 1.0;
        speeds += std::min(speed, 1.0);
        if (speed > 1)
            log_warn("device {}: a speed of {} cannot be emulated here; it runs at 1", device.name,
                     speed);
        stage.slowdown = slowdown_of(device);
        for (std::size_t j = 0; j < cluster.devices.size(); ++j) {
            if (i == j) continue;
            const Link& link = cluster.link(i, j);
            stage.links[cluster.devices[j].name] = {link.mbps, link.latency_ms};
        }
        const auto portal = portal_links(cluster);
        if (const auto link = portal.find(device.name); link != portal.end())
            stage.links["@portal"] = link->second;
        stages.push_back(std::move(stage));
    }
    if (speeds > cores)
        log_warn(
            "the devices' speeds sum to {:.2f}, this machine has {} cores: times will be longer "
            "than planned",
            speeds, cores);
    return stages;
}

void pin_to_cores(std::vector<LocalStage>& stages) {
    std::vector<double> load(std::max(1U, std::thread::hardware_concurrency()));
    std::vector<LocalStage*> busiest_first;
    for (LocalStage& stage : stages)
        if (stage.threads == 1) busiest_first.push_back(&stage);
    std::stable_sort(
        busiest_first.begin(), busiest_first.end(),
        [](const LocalStage* a, const LocalStage* b) { return a->slowdown < b->slowdown; });
    for (LocalStage* stage : busiest_first) {
        const auto least = std::min_element(load.begin(), load.end());
        stage->core = static_cast<int>(least - load.begin());
        *least += 1 / stage->slowdown;
    }
}

double mean_slowdown(const Cluster& cluster) {
    double sum = 0;
    for (const Device& device : cluster.devices) sum += slowdown_of(device);
    return sum / static_cast<double>(cluster.devices.size());
}

std::map<std::string, EmulatedLink> portal_links(const Cluster& cluster) {
    std::map<std::string, EmulatedLink> links;
    for (std::size_t i = 0; i < cluster.devices.size(); ++i) {
        if (i == cluster.portal) continue;
        const Link& link = cluster.link(cluster.portal, i);
        links[cluster.devices[i].name] = {link.mbps, link.latency_ms};
    }
    return links;
}

}  // namespace ecopipe
