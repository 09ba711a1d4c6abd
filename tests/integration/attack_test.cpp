// Hostile clients at every port while a training runs: no crash, no hang, bounded memory, the same
// bytes. ECOPIPE_FULL=1 sends 100,000 messages in each test, otherwise 1,500.
#include <fmt/format.h>

#include <atomic>
#include <thread>

#include "core/clock.h"
#include "core/command_line.h"
#include "tests/integration/training_fixture.h"
#include "tests/support/hostile.h"
#include "transport/wire/codec.h"
#include "transport/wire/federation_messages.h"
#include "transport/wire/messages.h"

namespace ecopipe::test {
namespace {

constexpr double kGrowthMibMax = 64;
constexpr double kAttackS = 240;

// Samples processes' memory until it goes; the largest growth since the start.
class MemoryWatch {
  public:
    explicit MemoryWatch(std::vector<int> processes) : processes_(std::move(processes)) {
        for (const int process : processes_) at_first_.push_back(resident_mib(process));
        thread_ = std::thread([this] {
            while (!stop_) {
                for (std::size_t i = 0; i < processes_.size(); ++i)
                    growth_ = std::max(growth_.load(), resident_mib(processes_[i]) - at_first_[i]);
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
            }
        });
    }
    ~MemoryWatch() { finish(); }
    double finish() {
        stop_ = true;
        if (thread_.joinable()) thread_.join();
        return growth_;
    }

  private:
    std::vector<int> processes_;
    std::vector<double> at_first_;
    std::atomic<double> growth_{0};
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

class Attack : public Training {
  protected:
    std::uint64_t messages() const { return full() ? 100'000 : 1'500; }
    std::string steps() const { return full() ? "12000" : "1000"; }
    std::vector<std::string> flags() const {
        return {"--data", "synthetic:1x28x28:10:2000", "--steps", steps(), "--batch",
                "32",     "--micro-batches",           "4"};
    }
    std::string keys(const std::string& name) const { return directory_ / ("keys-" + name); }
    void make_keys(const std::string& name) {
        ASSERT_TRUE(create_keys(keys(name), name));
        rings_[name] = std::make_unique<KeyRing>(*KeyRing::open(keys(name)));
    }
    void allow(const std::string& who, const std::string& peer) {
        write(keys(who) + "/allowed/" + peer + ".public", read(keys(peer) + "/own.public"));
    }
    const KeyPair& pair(const std::string& name) { return rings_.at(name)->own(); }

    // A portal with stages hub and pi, at known ports; more words for each program.
    void start(bool keyed) {
        control_ = free_port();
        data_hub_ = free_port();
        data_pi_ = free_port();
        write(directory_ / "cluster.yaml",
              fmt::format("name: home\nportal: hub\nportal_address: 127.0.0.1\nport: {}\ndevices:\n"
                          "  - {{name: d0, memory_mib: 2048, speed: 1}}\n"
                          "  - {{name: d1, memory_mib: 2048, speed: 1}}\n"
                          "  - {{name: hub, memory_mib: 2048, speed: 1}}\n"
                          "  - {{name: phone, memory_mib: 2048, speed: 1}}\n"
                          "default_link: {{mbps: 1000, latency_ms: 0.1}}\n",
                          control_));
        write(directory_ / "plan.json", hand_plan(lenet_, 2, "1f1b", 32, 4));
        const auto with_keys = [&](std::vector<std::string> words, const std::string& name) {
            if (keyed) words.insert(words.end(), {"--keys", keys(name)});
            return words;
        };
        std::vector<std::string> train{"ecopipe-train",
                                       "--model",
                                       "lenet5",
                                       "--cluster",
                                       directory_ / "cluster.yaml",
                                       "--plan",
                                       directory_ / "plan.json",
                                       "--out",
                                       directory_ / "attacked",
                                       "--no-evaluation",
                                       "--quiet"};
        for (std::size_t i = 0; i < flags().size(); i += 2)
            if (flags()[i] != "--batch" && flags()[i] != "--micro-batches")
                train.insert(train.end(), {flags()[i], flags()[i + 1]});
        train_ = std::make_unique<Process>(with_keys(train, "hub"));
        const auto stage = [&](const std::string& name, int port) {
            return std::make_unique<Process>(
                with_keys({"ecopipe-stage", "--join", fmt::format("tcp://127.0.0.1:{}", control_),
                           "--name", name, "--data-port", std::to_string(port)},
                          name));
        };
        stages_.push_back(stage("d0", data_hub_));
        stages_.push_back(stage("d1", data_pi_));
        ASSERT_TRUE(train_->wait_for_err("replicas every", 60)) << train_->err();
        std::this_thread::sleep_for(std::chrono::seconds(2));  // its own memory has grown by then
    }
    // Waits for the training's end and compares with the one that nobody attacked.
    void expect_unharmed(double growth_mib) {
        EXPECT_LT(growth_mib, kGrowthMibMax);
        const Finished finished = train_->wait(kAttackS);
        EXPECT_EQ(finished.code, 0) << finished.err;
        for (auto& stage : stages_) {
            const Finished ended = stage->wait(30);
            EXPECT_EQ(ended.code, 0) << ended.err;
        }
        EXPECT_TRUE(read(directory_ / "attacked/model.safetensors") ==
                    single(lenet_, flags(), "alone"));
        std::fputs(fmt::format("memory grew by {:.1f} MiB at most\n", growth_mib).c_str(), stdout);
    }
    std::vector<int> processes() const {
        return {train_->pid(), stages_[0]->pid(), stages_[1]->pid()};
    }
    // All at once; each attacker gets its own share.
    void attack_all(std::vector<std::function<void()>> attackers) {
        std::vector<std::thread> threads;
        for (auto& attacker : attackers) threads.emplace_back(attacker);
        for (std::thread& thread : threads) thread.join();
    }
    // As the device `phone`, which has no part in the plan: it is let in and knows the run.
    std::vector<std::function<void()>> as_phone(const HostileKeys* control,
                                                const std::map<int, const HostileKeys*>& data) {
        Hello hello;
        hello.device = "phone";
        hello.program_version = kVersion;
        hello.data_port = 1;
        hello.instance = 77;
        FrameHeader head;
        head.type = static_cast<std::uint16_t>(MessageType::kHello);
        const Hostile::Greeting greeting{head, encode(hello), true};
        const auto member = std::make_shared<Hostile>(control_, 21, control);
        member->attack(400, greeting);
        const std::uint64_t run = member->run();
        EXPECT_NE(run, 0U) << "it was not welcomed: " << train_->err();
        std::vector<std::function<void()>> attackers{
            [member, greeting, share = messages() / 3] { member->attack(share, greeting); }};
        for (const auto& [port, keys] : data)
            attackers.emplace_back([port = port, keys = keys, run, share = messages() / 3] {
                FrameHeader attach;
                attach.type = static_cast<std::uint16_t>(MessageType::kAttach);
                Hostile(port, static_cast<std::uint64_t>(port), keys)
                    .attack(share, Hostile::Greeting{attach, encode(Attach{"phone", 77}), false},
                            run);
            });
        return attackers;
    }
    [[nodiscard]] bool still_training() const {
        return resident_mib(train_->pid()) > 0 &&
               !exists(directory_ / "attacked/model.safetensors");
    }

    const ModelCase lenet_{"lenet5", "lenet5", 12};
    std::map<std::string, std::unique_ptr<KeyRing>> rings_;
    std::unique_ptr<Process> train_;
    std::vector<std::unique_ptr<Process>> stages_;
    int control_ = 0;
    int data_hub_ = 0;
    int data_pi_ = 0;
};

// Whoever is on the machine may say that it is a device of the cluster.
TEST_F(Attack, WithoutKeysOnLoopback) {
    start(false);
    MemoryWatch memory(processes());
    std::vector<std::function<void()>> attackers =
        as_phone(nullptr, {{data_hub_, nullptr}, {data_pi_, nullptr}});
    std::uint64_t seed = 1;
    for (const int port : {control_, data_hub_, data_pi_}) {
        attackers.push_back([port, seed] { Hostile(port, seed).attack_raw(full() ? 200 : 14); });
        ++seed;
    }
    attack_all(std::move(attackers));
    EXPECT_TRUE(still_training()) << "the attack outlasted the training";
    expect_unharmed(memory.finish());
}

TEST_F(Attack, AStrangerWithoutTheRightKey) {
    for (const char* name : {"hub", "d0", "d1", "phone", "stranger"}) make_keys(name);
    for (const char* name : {"d0", "d1"}) {
        allow("hub", name);
        allow(name, "hub");
    }
    start(true);
    MemoryWatch memory(processes());
    const std::uint64_t share = messages() / (full() ? 6 : 30);
    std::vector<std::function<void()>> attackers;
    const std::map<int, std::string> owners{{control_, "hub"}, {data_hub_, "d0"}, {data_pi_, "d1"}};
    std::uint64_t seed = 10;
    std::atomic<std::uint64_t> admitted{0};
    for (const auto& [port, owner] : owners) {
        attackers.push_back([this, port = port, owner = owner, share, seed, &admitted] {
            const HostileKeys unknown{&pair("stranger"), pair(owner).public_key};
            Hostile stranger(port, seed, &unknown);
            stranger.attack(share, Hostile::Greeting{{}, "x", true});
            admitted += stranger.admitted();
        });
        attackers.push_back([port = port, share, seed, &admitted] {
            Hostile keyless(port, seed);
            keyless.attack(share, {});
            admitted += keyless.admitted();
        });
        attackers.push_back(
            [port = port, seed] { Hostile(port, seed).attack_raw(full() ? 40 : 8); });
        ++seed;
    }
    attack_all(std::move(attackers));
    EXPECT_EQ(admitted, 0U) << "came past the handshake";
    // Refused connections are slowed on purpose: the attack may go on after the training's end.
    expect_unharmed(memory.finish());
    EXPECT_NE(train_->err().find(pair("stranger").public_key.fingerprint()), std::string::npos);
}

// A device of the cluster, with a key, that has no part in the plan: it is let in and knows the
// run.
TEST_F(Attack, AKeyedButHostileDevice) {
    for (const char* name : {"hub", "d0", "d1", "phone"}) make_keys(name);
    for (const char* name : {"d0", "d1", "phone"}) {
        allow("hub", name);
        allow(name, "hub");
    }
    start(true);
    MemoryWatch memory(processes());
    const HostileKeys control{&pair("phone"), pair("hub").public_key};
    const HostileKeys d0{&pair("phone"), pair("d0").public_key};
    const HostileKeys d1{&pair("phone"), pair("d1").public_key};
    attack_all(as_phone(&control, {{data_hub_, &d0}, {data_pi_, &d1}}));
    EXPECT_TRUE(still_training()) << "the attack outlasted the training";
    expect_unharmed(memory.finish());
}

TEST_F(Attack, TheFederationsServer) {
    const auto federation = [&](const std::string& name, bool attacked) {
        const int port = free_port();
        const std::string address = fmt::format("tcp://127.0.0.1:{}", port);
        Process server({"ecopipe-fl-server", "--bind", address, "--model", "lenet5", "--state",
                        directory_ / name, "--rounds", full() ? "200" : "20", "--min-clusters", "1",
                        "--round-timeout-s", "10"});
        EXPECT_TRUE(server.wait_for_err("listening on", 30)) << server.err();
        Process client({"ecopipe-train", "--single", "--model", "lenet5", "--data",
                        "synthetic:1x28x28:10:2000", "--out", directory_ / (name + "-client"),
                        "--no-evaluation", "--quiet", "--federated", address, "--cluster-name",
                        "north"});
        if (attacked) {
            EXPECT_TRUE(server.wait_for_err("round 1", 60)) << server.err();
            MemoryWatch memory({server.pid()});
            ClusterHello hello;
            hello.cluster = "south";
            hello.program_version = kVersion;
            hello.instance = 77;
            hello.model = "lenet5";
            FrameHeader head;
            head.type = static_cast<std::uint16_t>(MessageType::kClusterHello);
            attack_all({[&] { Hostile(port, 31).attack(messages() / 2, {}); },
                        [&] {
                            Hostile(port, 32).attack(messages() / 2,
                                                     Hostile::Greeting{head, encode(hello), true});
                        },
                        [&] { Hostile(port, 33).attack_raw(full() ? 200 : 14); }});
            const double growth = memory.finish();
            EXPECT_LT(growth, kGrowthMibMax);
            std::fputs(fmt::format("memory grew by {:.1f} MiB at most\n", growth).c_str(), stdout);
        }
        const Finished ended = server.wait(kAttackS);
        EXPECT_EQ(ended.code, 0) << ended.err;
        const Finished trained = client.wait(30);
        EXPECT_EQ(trained.code, 0) << trained.err;
        return read(directory_ / (name + "/model.safetensors"));
    };
    const std::string quiet = federation("quiet", false);
    EXPECT_FALSE(quiet.empty());
    EXPECT_TRUE(federation("attacked", true) == quiet);
}

}  // namespace
}  // namespace ecopipe::test
