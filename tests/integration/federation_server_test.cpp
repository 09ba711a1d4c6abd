// The running server against clusters that lie, a disk that fills up, and a crowd.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <future>
#include <limits>
#include <set>
#include <thread>

#include "core/command_line.h"
#include "core/files.h"
#include "core/random.h"
#include "core/strict_json.h"
#include "tests/integration/federation_server_fixture.h"
#include "tests/support/scripted_cluster.h"

namespace ecopipe::test {
namespace {

TEST_F(FederationServer, PrintsTheConfigurationThatTheFlagsMakeOfIt) {
    write(directory_ / "server.yaml", "strategy: {name: fedasync, min_clients: 3, alpha: 0.5}\n");
    const auto printed = [&](Flags more) {
        more.insert(more.begin(), {"ecopipe-fl-server", "--print-config"});
        const Finished finished = run(more);
        EXPECT_EQ(finished.code, 0) << finished.err;
        return finished.out;
    };
    const auto expect = [](const std::string& text, const char* part) {
        EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
    };
    const std::string flags = printed({"--round-timeout-s", "5", "--min-clusters", "7"});
    expect(flags, "name: fedavg ");
    expect(flags, " deadline_s: 5.0 ");
    expect(flags, " min_clients: 7 ");
    const std::string config = printed({"--config", directory_ / "server.yaml"});
    expect(config, "name: fedasync ");
    expect(config, " min_clients: 3 ");
    expect(config, " alpha: 0.5 ");
    expect(printed({"--config", directory_ / "server.yaml", "--min-clusters", "7"}),
           " min_clients: 7 ");
}

// What no byte depends on may be another at a restart; what one does is refused by name.
TEST_F(FederationServer, ARestartMayChangeWhatNoByteDependsOn) {
    const std::string state = directory_ / "state";
    const auto restart = [&](const Flags& more, const std::string& min_clusters = "2") {
        Flags line = flags(state, min_clusters, more);
        Process server(line);
        const bool listens = server.wait_for_err("listening", kServerDeadlineS);
        if (listens) server.signal(SIGTERM);
        const Finished ended = server.wait(kServerDeadlineS);
        EXPECT_EQ(ended.code, listens ? 143 : 2) << ended.err;
        return listens ? std::string() : ended.err;
    };
    EXPECT_EQ(restart({"--round-timeout-s", "5"}), "");
    write(directory_ / "limits.yaml",
          "client: {lr: 0.5}\nlimits: {weight_max: 3, samples_max: 5, staleness_max: 2}\n");
    for (const Flags& more :
         {Flags{"--round-timeout-s", "7"}, Flags{"--rounds", "77"}, Flags{"--peer-timeout-s", "3"},
          Flags{"--keep-models", "9"}, Flags{"--keep-updates"},
          Flags{"--metrics-bind", "127.0.0.1:0"}, Flags{"--web", "127.0.0.1:0"},
          Flags{"--eval-data", "synthetic:1x28x28:10:20"}, Flags{"--threads", "2"},
          Flags{"--config", directory_ / "limits.yaml"}})
        EXPECT_EQ(restart(more), "") << more.front();
    EXPECT_EQ(restart({}, "3"), "");
    write(directory_ / "clip.yaml", "limits: {norm_clip: 3}\n");
    write(directory_ / "robust.yaml", "robust: {rule: median}\n");
    write(directory_ / "fraction.yaml", "strategy: {name: fedavg, clients_per_round: 2}\n");
    for (const auto& [more, name] : std::vector<std::pair<Flags, std::string>>{
             {{"--seed", "1"}, "strategy"},
             {{"--strategy", "fedasync"}, "strategy"},
             {{"--config", directory_ / "clip.yaml"}, "norm_clip"},
             {{"--config", directory_ / "robust.yaml"}, "robust"},
             {{"--config", directory_ / "fraction.yaml"}, "strategy"}})
        EXPECT_NE(restart(more).find("its " + name + " is "), std::string::npos) << name;
}

// ---- the operator's commands

TEST_F(FederationServer, ClustersMaxAreConnectedAndOneMoreWaits) {
    write(directory_ / "server.yaml", "limits: {clusters_max: 2}\n");
    Process server(flags(directory_ / "state", "3",
                         {"--rounds", "1", "--config", directory_ / "server.yaml"}));
    ASSERT_TRUE(server.wait_for_err("listening", kServerDeadlineS)) << server.err();
    const auto joins = [&](const std::string& name, FederationLink& link, double timeout_s) {
        ClusterHello hello;
        hello.cluster = name;
        hello.program_version = kVersion;
        hello.model = "lenet5";
        hello.instance = keyed_seed(1, name);
        hello.samples = kScriptedSamples;
        const auto welcome = link.join(server_, "", hello, timeout_s);
        return welcome ? std::string() : welcome.error().message;
    };
    NetLoop loop;
    FederationLink a(loop);
    FederationLink b(loop);
    FederationLink c(loop);
    EXPECT_EQ(joins("a", a, kServerDeadlineS), "");
    EXPECT_EQ(joins("b", b, kServerDeadlineS), "");
    EXPECT_NE(joins("c", c, 1).find("2 clusters are connected already"), std::string::npos);
}

class Connections : public FederationServer {
  protected:
    [[nodiscard]] int dial() const {
        const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(server_.port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
        return fd;
    }
    // Dials `most` times and once more; the line that this makes the server write.
    void expect_one_too_many(const std::string& limits, int most, const std::string& line) {
        write(directory_ / "server.yaml", "limits: {" + limits + "}\n");
        Process server(flags(directory_ / "state", "9", {"--config", directory_ / "server.yaml"}));
        ASSERT_TRUE(server.wait_for_err("listening", kServerDeadlineS)) << server.err();
        std::vector<int> open;
        for (int i = 0; i < most; ++i) open.push_back(dial());
        // A cluster is heard, so what came before it has been looked at.
        open.push_back(dial());
        EXPECT_TRUE(server.wait_for_err(line, kServerDeadlineS)) << server.err();
        const std::string said = server.err();
        EXPECT_EQ(said.find("dropped", said.find("dropped") + 1), std::string::npos)
            << "only the last is one too many: " << said;
        for (const int fd : open) ::close(fd);
    }
};

TEST_F(Connections, OfOneAddress) {
    expect_one_too_many(
        "connections_per_address: 3, silent_connections: 100, "
        "connections_per_s: 100000",
        3, "more than 3 connections");
}
TEST_F(Connections, ThatSayNothing) {
    expect_one_too_many("silent_connections: 3", 3, "more than 3 connections that say nothing");
}

// ---- clusters that lie

struct Lie {
    const char* name;
    const char* reason;  // as rounds.jsonl has it
    std::function<void(UpdateSlice&, std::string&)> tell;
};

void set_weight(std::string& bytes, std::size_t at, float value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
}

const std::vector<Lie>& lies() {
    static const std::vector<Lie> all{
        {"nan", "has a value that is not finite",
         [](UpdateSlice& slice, std::string& bytes) {
             set_weight(bytes, bytes.size() - 4, std::numeric_limits<float>::quiet_NaN());
             slice.sha256 = sha256_hex(bytes);
         }},
        {"huge", "moves a value by 1e+30",
         [](UpdateSlice& slice, std::string& bytes) {
             for (std::size_t at = 0; at < bytes.size(); at += 4) set_weight(bytes, at, 1e30F);
             slice.sha256 = sha256_hex(bytes);
         }},
        {"shapes", "bytes, expected",
         [](UpdateSlice& slice, std::string& bytes) {
             bytes.resize(bytes.size() - 4);
             slice.bytes = bytes.size();
             slice.sha256 = sha256_hex(bytes);
         }},
        {"stale", "it starts from version",
         [](UpdateSlice& slice, std::string&) { slice.base_version ^= 1U; }},
    };
    return all;
}

AnswerTask lying(const Lie& lie) {
    return [&lie](FederationLink& link, const Task& task) -> Result<void> {
        std::string bytes = formula(task, lie.name);
        OutgoingSlice slice = whole_update(task, bytes);
        lie.tell(slice.announcement, bytes);
        slice.bytes = bytes.size();
        ECOPIPE_ASSIGN_OR_RETURN(const Verdict verdict, push(link, slice, bytes));
        EXPECT_FALSE(verdict.accepted) << lie.name;
        EXPECT_NE(verdict.reason.find(lie.reason), std::string::npos) << verdict.reason;
        return {};
    };
}

TEST_F(FederationServer, LiarsAreLeftOutOnTimeWithTheirReasons) {
    const std::vector<std::string> names{"a", "b", "c", "twice"};
    const std::string expected = calm(names, "2");
    ASSERT_FALSE(expected.empty());
    constexpr double kRoundS = 3;
    const std::string state = directory_ / "lied-to";
    Process server(
        flags(state, "10", {"--rounds", "2", "--round-timeout-s", std::to_string(kRoundS)}));
    std::vector<std::thread> clusters;
    for (const char* name : {"a", "b", "c"}) clusters.push_back(honest(name));
    for (const Lie& lie : lies()) clusters.push_back(cluster(lie.name, lying(lie)));
    // Answered with the same verdict, and counted once.
    clusters.push_back(cluster("twice", [](FederationLink& link, const Task& task) -> Result<void> {
        const std::string bytes = formula(task, "twice");
        for (int time = 0; time < 2; ++time) {
            ECOPIPE_ASSIGN_OR_RETURN(const Verdict verdict,
                                     push(link, whole_update(task, bytes), bytes));
            EXPECT_TRUE(verdict.accepted || verdict.reason == "the federation has ended")
                << verdict.reason;
        }
        return {};
    }));
    // Announces all of it, sends the first half, and waits.
    clusters.push_back(cluster("half", [](FederationLink& link, const Task& task) -> Result<void> {
        link.set_patience(2 * kRoundS);  // the server ends before it answers
        const std::string bytes = formula(task, "half");
        OutgoingSlice slice = whole_update(task, bytes);
        slice.bytes = bytes.size() / 2;
        ECOPIPE_RETURN_IF_ERROR(push(link, slice, bytes));
        return {};
    }));
    clusters.push_back(cluster(
        "nothing", [](FederationLink&, const Task&) -> Result<void> { return Result<void>(); }));
    const Finished ended = server.wait(kServerDeadlineS);
    EXPECT_EQ(ended.code, 0) << ended.err;
    for (std::thread& one : clusters) one.join();
    EXPECT_TRUE(read(state + "/model.safetensors") == expected);
    const std::vector<Json> rounds = lines_of(read(state + "/rounds.jsonl"));
    ASSERT_EQ(rounds.size(), 2U);
    for (const Json& round : rounds) {
        EXPECT_LT(round["wall_s"].get<double>(), kRoundS + 1.5) << round;
        EXPECT_EQ(round["clusters"], Json(names)) << round;
        EXPECT_EQ(round["samples"], 4 * kScriptedSamples) << round;
        for (const Lie& lie : lies())
            EXPECT_NE(round["rejected"].value(lie.name, "").find(lie.reason), std::string::npos)
                << round;
    }
    for (const char* name : {"half", "nothing"})
        EXPECT_EQ(rounds[0]["rejected"].value(name, ""), "no update before the round's deadline")
            << rounds[0];
}

// ---- a disk that fills up

// The server's own file system of 16 MiB, reached from here through its process.
class ServerDisk : public FederationServer {
  protected:
    // The descriptor of the mounted directory, which keeps it there when the server has ended.
    int mounted(const Process& server) {
        const std::string path =
            "/proc/" + std::to_string(server.pid()) + "/root" + (directory_ / "mount");
        return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    static std::string at(int descriptor) {
        return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(descriptor);
    }
    // Leaves so many bytes free.
    static void fill(const std::string& disk, std::uint64_t left) {
        struct statvfs facts{};
        ASSERT_EQ(::statvfs(disk.c_str(), &facts), 0);
        const std::uint64_t free = facts.f_bavail * facts.f_frsize;
        ASSERT_GT(free, left);
        write(disk + "/filler", std::string(free - left, '\0'));
    }
};

TEST_F(ServerDisk, BelowTheLimitNoUpdateIsTakenAndNothingIsLost) {
    const std::string expected = calm({"a", "b"}, "2");
    const std::string mount = directory_ / "mount";
    write(directory_ / "server.yaml", "limits: {free_space_mib: 4}\n");
    std::string command =
        "mkdir -p " + mount + " && mount -t tmpfs -o size=16m none " + mount + " || exit 99\nexec";
    Flags line =
        flags(mount + "/state", "2", {"--rounds", "2", "--config", directory_ / "server.yaml"});
    line[0] = program(line[0]);
    for (const std::string& word : line) command += " " + word;
    write(directory_ / "disk.sh", command + "\n");
    Process server(with_own_mounts({"/bin/sh", directory_ / "disk.sh"}));
    ASSERT_TRUE(server.wait_for_err("listening", kServerDeadlineS)) << server.err();
    const int disk = mounted(server);
    ASSERT_GE(disk, 0) << std::strerror(errno);
    // In the second round a's update is acknowledged, then the disk fills up, then b has its own.
    std::promise<void> acknowledged;
    std::promise<void> filled;
    const std::shared_future<void> full = filled.get_future().share();
    std::thread a = cluster("a", [&](FederationLink& link, const Task& task) -> Result<void> {
        ECOPIPE_RETURN_IF_ERROR(answer_honestly(link, task, "a"));
        if (task.base_version == 1) acknowledged.set_value();
        return {};
    });
    std::thread b = cluster("b", [&](FederationLink& link, const Task& task) -> Result<void> {
        if (task.base_version == 1) full.wait();
        ECOPIPE_RETURN_IF_ERROR(answer_honestly(link, task, "b"));
        return {};
    });
    acknowledged.get_future().wait();
    fill(at(disk), 3U << 20);
    EXPECT_TRUE(
        server.wait_for_err("the disk is nearly full: no update is taken", kServerDeadlineS))
        << server.err();
    filled.set_value();
    const Finished status =
        run({"ecopipe-fl-server", "status", "--json", "--state", at(disk) + "/state"});
    EXPECT_NE(status.out.find("\"phase\":\"disk full\""), std::string::npos)
        << status.out << status.err;
    EXPECT_EQ(lines_of(read(at(disk) + "/state/rounds.jsonl")).size(), 1U);
    EXPECT_EQ(::unlink((at(disk) + "/filler").c_str()), 0);
    EXPECT_TRUE(server.wait_for_err("the disk has room again: updates are taken", kServerDeadlineS))
        << server.err();
    const Finished ended = server.wait(kServerDeadlineS);
    EXPECT_EQ(ended.code, 0) << ended.err;
    a.join();
    b.join();
    EXPECT_TRUE(read(at(disk) + "/state/model.safetensors") == expected);
    ::close(disk);
}

// ---- a crowd

TEST_F(FederationServer, AHundredClustersFitInItsMemory) {
    constexpr double kModelMib = 4.8;
    write(directory_ / "server.yaml", "limits: {connections_per_s: 1000}\n");
    Flags line = flags(directory_ / "state", "100",
                       {"--rounds", "1", "--config", directory_ / "server.yaml"});
    *std::find(line.begin(), line.end(), "lenet5") = "fashion_cnn";
    Process server(line);
    ASSERT_TRUE(server.wait_for_err("listening", kServerDeadlineS)) << server.err();
    const Finished load =
        run({"ecopipe-bench", "federation", "--server", server_.text(), "--model", "fashion_cnn",
             "--clusters", "100", "--server-pid", std::to_string(server.pid()), "--json"},
            kServerDeadlineS);
    ASSERT_EQ(load.code, 0) << load.err << server.err();
    EXPECT_EQ(server.wait(kServerDeadlineS).code, 0) << server.err();
    const Json measured = Json::parse(load.out);
    EXPECT_EQ(measured["rounds"][0]["accepted"], 100) << measured;
    EXPECT_EQ(measured["rounds"][0]["rejected"], 0) << measured;
    EXPECT_GT(measured["server_peak_mib"].get<double>(), 10) << measured;
    EXPECT_LT(measured["server_peak_mib"].get<double>(), 3 * kModelMib + 200) << measured;
    std::printf("%s", load.out.c_str());
}

// ---- the process that tests models

pid_t only_child(pid_t process) {
    const std::string of = std::to_string(process);
    return std::stoi(read("/proc/" + of + "/task/" + of + "/children"));
}

TEST_F(FederationServer, AnEvaluatorThatIsKilledOrStoppedIsStartedAgain) {
    const std::string state = directory_ / "evaluated";
    write(directory_ / "server.yaml", "limits: {evaluation_timeout_s: 5}\n");
    Process server(flags(state, "1",
                         {"--rounds", "4", "--eval-data", "synthetic:1x28x28:10:200", "--config",
                          directory_ / "server.yaml"}));
    std::set<pid_t> evaluators;
    std::thread one = cluster("a", [&](FederationLink& link, const Task& task) -> Result<void> {
        const pid_t evaluator = only_child(server.pid());
        evaluators.insert(evaluator);
        if (task.base_version == 1) ::kill(evaluator, SIGKILL);
        if (task.base_version == 2) ::kill(evaluator, SIGSTOP);
        ECOPIPE_RETURN_IF_ERROR(answer_honestly(link, task, "a"));
        return {};
    });
    const Finished ended = server.wait(kServerDeadlineS);
    one.join();
    EXPECT_EQ(ended.code, 0) << ended.err;
    EXPECT_EQ(evaluators.size(), 3U);
    EXPECT_NE(ended.err.find("is gone"), std::string::npos) << ended.err;
    EXPECT_NE(ended.err.find("does not answer"), std::string::npos) << ended.err;
    for (const Json& line : lines_of(read(state + "/rounds.jsonl")))
        EXPECT_TRUE(line.contains("accuracy")) << line;
}

}  // namespace
}  // namespace ecopipe::test
