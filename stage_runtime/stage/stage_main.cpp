// ecopipe-stage: the worker that runs on a device.
#include <fmt/format.h>

#include <charconv>

#include "core/command_line.h"
#include "core/host_facts.h"
#include "core/log.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/numeric_class.h"
#include "stage_runtime/stage/slow_switch.h"
#include "stage_runtime/stage/worker.h"
#include "transport/security/security.h"

namespace ecopipe {
namespace {

constexpr double kSlowdownMax = 1e6;
constexpr double kMbpsMax = 1e6;
constexpr double kLatencyMsMax = 60000;

// "PEER=MBPS/LATENCY_MS"
Result<void> parse_link(const std::string& text, std::map<std::string, EmulatedLink>& links) {
    const std::size_t equals = text.find('=');
    const std::size_t slash = text.find('/', equals == std::string::npos ? 0 : equals);
    if (equals != std::string::npos && equals > 0 && slash != std::string::npos) {
        EmulatedLink link;
        const char* end = text.data() + text.size();
        const auto rate = std::from_chars(text.data() + equals + 1, text.data() + slash, link.mbps);
        const auto latency = std::from_chars(text.data() + slash + 1, end, link.latency_ms);
        if (rate.ec == std::errc() && rate.ptr == text.data() + slash &&
            latency.ec == std::errc() && latency.ptr == end && link.mbps >= 0 &&
            link.mbps <= kMbpsMax && link.latency_ms >= 0 && link.latency_ms <= kLatencyMsMax) {
            links[text.substr(0, equals)] = link;
            return {};
        }
    }
    return fail(ExitCode::kUsage,
                fmt::format("--link: expected PEER=MBPS/LATENCY_MS, found '{}'", printable(text)));
}

// What launch_stages.sh check wants to know of a device.
Result<ExitCode> self_check(int threads) {
    ECOPIPE_ASSIGN_OR_RETURN(const NumericClass numeric, measure_numeric_class(threads));
    const OrderedJson facts{{"version", kVersion},
                            {"numeric_class", fmt::format("{:016x}", numeric.hash)},
                            {"numeric_summary", numeric.summary},
                            {"cpu", cpu_name()},
                            {"cores", core_count()},
                            {"memory_mib", available_memory_mib()},
                            {"fast_blas", torch_versions().fast_blas}};
    fmt::print("{}\n", facts.dump());
    return ExitCode::kDone;
}

Result<ExitCode> run(int argc, const char* const* argv) {
    CommandLine line("ecopipe-stage",
                     "runs layers of a network on this device for a portal (ecopipe-train)");
    line.text("join", "the portal's address, tcp://PORTAL:PORT");
    line.text("name", "this device's name in the cluster file");
    line.integer("threads", "threads that compute", {1, 1024}, 1);
    line.text("models", "directory that TorchScript files may be loaded from", ".");
    line.text(
        "data-address",
        "address that other devices reach this one at (default: the interface towards the portal)");
    line.integer("data-port", "port for tensors from other devices; 0: any", {0, 65535}, 0);
    line.flag("self-check", "print one JSON line about this device and leave");
    line.text("memory-budget",
              "a file with the MiB that tensors may take, read before each step of a run with "
              "--recompute adaptive (default: what is free)");
    line.flag("stay", "serve run after run");
    line.text("orphan", "when the portal is lost: exit, or wait for it (with --stay)", "exit");
    line.number("join-timeout-s", "give up when no portal answers for this long", {0.1, 1e9}, 600);
    declare_security(line);
    line.text("portal", "with --keys: the portal's name in allowed/ (default: the only one there)");
    line.number("slowdown", "emulate a device this many times slower", {1, kSlowdownMax}, 1);
    line.number("link-mbps", "emulate links of this rate; 0: as they are", {0, kMbpsMax}, 0);
    line.number("link-latency-ms", "emulate links of this latency", {0, kLatencyMsMax}, 0);
    line.texts("link", "emulate the link to one device: PEER=MBPS/LATENCY_MS; may be repeated");
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    if (line.get_flag("self-check")) {
        const auto threads = static_cast<int>(line.get_integer("threads"));
        configure_torch(threads);
        return self_check(threads);
    }
    for (const char* needed : {"join", "name"})
        if (!line.has(needed))
            return fail(ExitCode::kUsage, fmt::format("--{} is missing", needed));

    WorkerOptions options;
    ECOPIPE_ASSIGN_OR_RETURN(options.portal, parse_endpoint(line.get_text("join"), "--join"));
    ECOPIPE_ASSIGN_OR_RETURN(const Security security, security_from(line));
    ECOPIPE_RETURN_IF_ERROR(allow_address(options.portal, security, "--join"));
    ECOPIPE_ASSIGN_OR_RETURN(options.portal_name, dialled_peer(line, security, "portal"));
    options.security = security;
    options.device = line.get_text("name");
    options.threads = static_cast<int>(line.get_integer("threads"));
    options.models_directory = line.get_text("models");
    if (line.has("data-address")) {
        ECOPIPE_ASSIGN_OR_RETURN(options.data_address,
                                 parse_host(line.get_text("data-address"), "--data-address"));
    }
    options.data_port = static_cast<int>(line.get_integer("data-port"));
    options.data_bind = options.portal.loopback() ? "localhost" : "*";
    if (!options.data_address.empty() && !Endpoint{options.data_address, 0}.loopback()) {
        ECOPIPE_RETURN_IF_ERROR(
            allow_address({options.data_address, 0}, security, "--data-address"));
        options.data_bind = "*";
    }
    if (line.has("memory-budget")) options.memory_budget = line.get_text("memory-budget");
    options.stay = line.get_flag("stay");
    const std::string orphan = line.get_text("orphan");
    if (orphan != "exit" && orphan != "wait")
        return fail(ExitCode::kUsage,
                    fmt::format("--orphan: expected exit or wait, found '{}'", printable(orphan)));
    options.wait_when_orphaned = orphan == "wait";
    options.join_timeout_s = line.get_number("join-timeout-s");
    options.slowdown = line.get_number("slowdown");
    options.link = {line.get_number("link-mbps"), line.get_number("link-latency-ms")};
    for (const std::string& link : line.get_texts("link"))
        ECOPIPE_RETURN_IF_ERROR(parse_link(link, options.links));

    watch_signals();
    watch_slow_switch();
    configure_torch(options.threads);
    warn_without_fast_blas();
    return run_worker(options);
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    return ecopipe::run_program("ecopipe-stage", [&] { return ecopipe::run(argc, argv); });
}
