// Devices die, hang, slow down, leave and come back, the portal dies and is resumed: only the time
// changes. Every trained model is compared byte for byte with one trained in one process.
// ECOPIPE_FULL=1 kills at 20 random moments instead of one a stage.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <regex>
#include <sstream>
#include <thread>

#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

constexpr double kDeadlineS = 120;

class Survival : public Training {
  protected:
    const ModelCase model_{"lenet5", "lenet5", 12};
    Flags flags(const std::string& steps = "60") const {
        return {"--data",          "fashion-mnist",
                "--data-limit",    "500",
                "--steps",         steps,
                "--batch",         "50",
                "--micro-batches", "4",
                "--seed",          "5"};
    }

    std::string cluster(int devices, double speed = 0.5, const std::string& profile = "") {
        std::string text = "name: home\nportal: d0\nportal_address: 127.0.0.1\ndevices:\n";
        for (int d = 0; d < devices; ++d)
            text += "  - {name: d" + std::to_string(d) + ", memory_mib: 1024, " +
                    (profile.empty() ? "speed: " + std::to_string(speed) : "profile: " + profile) +
                    "}\n";
        write(directory_ / "cluster.yaml", text + "default_link: {mbps: 1000, latency_ms: 0.1}\n");
        return directory_ / "cluster.yaml";
    }

    // The model's sizes as they are, and times that no moment of this machine decides.
    std::string even_profile() {
        const std::string path = directory_ / "profile.json";
        const Finished profiled =
            run({"ecopipe-profile", "--model", "lenet5", "--data", "fashion-mnist", "--micro-batch",
                 "13", "--seconds", "0.01", "--out", path});
        EXPECT_EQ(profiled.code, 0) << profiled.err;
        std::string text = read(path);
        for (const auto& [key, ms] : {std::pair("forward_ms", "1"),
                                      {"backward_ms", "2"},
                                      {"input_gradient_ms", "1"},
                                      {"weight_gradient_ms", "1"}})
            text = std::regex_replace(text, std::regex("\"" + std::string(key) + "\": [0-9.e-]+"),
                                      "\"" + std::string(key) + "\": " + ms);
        write(path, text);
        return "profile.json";
    }

    std::unique_ptr<Process> start(const std::string& name, Flags more,
                                   const std::string& steps = "60") {
        Flags all{"ecopipe-train", "--model", "lenet5",         "--no-evaluation",
                  "--quiet",       "--out",   directory_ / name};
        for (Flags* part : {&more})
            for (std::string& flag : *part) all.push_back(flag);
        const bool planned = std::find(all.begin(), all.end(), "--plan") != all.end();
        const Flags common = flags(steps);
        for (std::size_t i = 0; i < common.size(); ++i) {
            if (planned && (common[i] == "--batch" || common[i] == "--micro-batches")) {
                ++i;
            } else {
                all.push_back(common[i]);
            }
        }
        return std::make_unique<Process>(std::move(all));
    }

    [[nodiscard]] std::string metrics(const std::string& name) const {
        return read(directory_ / (name + "/metrics.jsonl"));
    }
    [[nodiscard]] long steps_in(const std::string& name) const {
        const std::string text = metrics(name);
        long count = 0;
        for (std::size_t at = 0; (at = text.find("{\"step\":", at)) != std::string::npos; ++at)
            ++count;
        return count;
    }
    // Waits until that many steps are recorded.
    void reach(const std::string& name, long steps, const Process& train) const {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (steps_in(name) < steps) {
            ASSERT_LT(std::chrono::steady_clock::now(), deadline) << train.err();
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }
    static pid_t stage_of(const Process& train, const std::string& device) {
        for (const pid_t child : children_of(train.pid())) {
            std::string line = read("/proc/" + std::to_string(child) + "/cmdline");
            std::replace(line.begin(), line.end(), '\0', ' ');
            if (line.find("--name " + device + " ") != std::string::npos) return child;
        }
        ADD_FAILURE() << "no stage " << device;
        return -1;
    }
    // It ended by itself with every step once and in order, and with the same bytes.
    void expect_survived(const std::string& name, Process& train, long steps = 60) {
        const Finished finished = train.wait(kDeadlineS);
        ASSERT_EQ(finished.code, 0) << finished.err;
        expect_whole(name, steps);
        EXPECT_TRUE(read(directory_ / (name + "/model.safetensors")) == reference(steps))
            << name << "\n"
            << finished.err;
        EXPECT_TRUE(children_of(train.pid()).empty());
    }
    void expect_whole(const std::string& name, long steps) const {
        std::istringstream lines(metrics(name));
        long next = 1;
        for (std::string line; std::getline(lines, line);) {
            if (!line.starts_with("{\"step\":")) continue;
            ASSERT_TRUE(line.starts_with("{\"step\":" + std::to_string(next) + ",")) << line;
            ++next;
        }
        EXPECT_EQ(next - 1, steps);
    }
    const std::string& reference(long steps = 60) {
        std::string& bytes = references_[steps];
        if (bytes.empty())
            bytes =
                single(model_, flags(std::to_string(steps)), "reference" + std::to_string(steps));
        return bytes;
    }
    std::map<long, std::string> references_;
};

TEST_F(Survival, AnyStageKilledAtAnyMoment) {
    const Flags local{"--local", "--cluster", cluster(3)};
    std::mt19937 random(full() ? std::random_device()() : 7U);
    const int rounds = full() ? 20 : 3;
    for (int round = 0; round < rounds; ++round) {
        const std::string name = "killed" + std::to_string(round);
        const std::string victim = "d" + std::to_string(round % 3);
        auto train = start(name, local);
        reach(name, 1 + static_cast<long>(random() % 45), *train);
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 20000));
        ::kill(stage_of(*train, victim), SIGKILL);
        expect_survived(name, *train);
        if (HasFatalFailure()) return;
        const std::string text = metrics(name);
        EXPECT_NE(text.find("\"kind\":\"lost\",\"devices\":[\"" + victim + "\"]"),
                  std::string::npos)
            << train->err();
        EXPECT_NE(text.find("\"bytes_moved\":"), std::string::npos);
        const std::size_t pause = text.find("\"pause_ms\":");
        ASSERT_NE(pause, std::string::npos);
        EXPECT_LT(std::stod(text.substr(pause + 11)), 5000);
        EXPECT_NE(train->err().find("device " + victim + " (stage "), std::string::npos);
    }
}

TEST_F(Survival, AKilledStageThatComesBackIsUsedAgain) {
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    const std::string file = cluster(3, 1, even_profile());
    // Long enough for a move to pay.
    auto train = start("back", {"--cluster", file, "--bind", portal}, "400");
    const auto stage = [&](const std::string& name) {
        return std::make_unique<Process>(
            Flags{"ecopipe-stage", "--join", portal, "--name", name, "--slowdown", "3"});
    };
    auto d0 = stage("d0");
    auto d1 = stage("d1");
    auto d2 = stage("d2");
    reach("back", 10, *train);
    d1->signal(SIGKILL);
    ASSERT_TRUE(train->wait_for_err("recovered in", kDeadlineS)) << train->err();
    auto again = stage("d1");
    ASSERT_TRUE(train->wait_for_err("d1 joined: the best plan now takes", kDeadlineS))
        << train->err();
    expect_survived("back", *train, 400);
    EXPECT_NE(metrics("back").find("\"kind\":\"moved\",\"cause\":\"d1 joined\""), std::string::npos)
        << train->err();
    for (auto* process : {&d0, &d2, &again}) EXPECT_EQ((*process)->wait(kDeadlineS).code, 0);
}

// Started again before anybody has noticed that it was killed, as systemd does: while devices are
// waited for as in the middle of training.
TEST_F(Survival, AStageStartedAgainAtOnceIsNotTakenForASecondOne) {
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    auto train = start("at-once", {"--cluster", cluster(3), "--bind", portal}, "200");
    const auto stage = [&](const std::string& name) {
        return std::make_unique<Process>(
            Flags{"ecopipe-stage", "--join", portal, "--name", name, "--slowdown", "3"});
    };
    auto d0 = stage("d0");
    ASSERT_TRUE(train->wait_for_err("d0 joined", kDeadlineS)) << train->err();
    d0->signal(SIGKILL);
    auto d0_again = stage("d0");
    auto d1 = stage("d1");
    auto d2 = stage("d2");
    reach("at-once", 10, *train);
    d1->signal(SIGKILL);
    auto d1_again = stage("d1");
    expect_survived("at-once", *train, 200);
    for (auto* process : {&d0_again, &d1_again, &d2})
        EXPECT_EQ((*process)->wait(kDeadlineS).code, 0) << (*process)->err();
}

// What is closed is told as who does not reach whom, and the others train to the same bytes.
TEST_F(Survival, ADeviceThatTheOthersDoNotReachIsLeftOut) {
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    auto train = start("unreached", {"--cluster", cluster(3), "--bind", portal});
    const auto stage = [&](const std::string& name, const Flags& more = {}) {
        Flags all{"ecopipe-stage", "--join", portal, "--name", name};
        all.insert(all.end(), more.begin(), more.end());
        return std::make_unique<Process>(all);
    };
    auto d0 = stage("d0");
    auto d1 = stage("d1");
    // It listens on 127.0.0.1 and ::1 alone.
    auto d2 = stage("d2", {"--data-address", "127.77.0.1"});
    expect_survived("unreached", *train);
    const std::string told = train->err();
    EXPECT_NE(told.find("the portal cannot reach d2 at tcp://127.77.0.1:"), std::string::npos)
        << told;
    EXPECT_NE(told.find("; the others go on without d2; all go back"), std::string::npos) << told;
    for (auto* process : {&d0, &d1, &d2}) EXPECT_EQ((*process)->wait(kDeadlineS).code, 0);
}

// Whether the run still needs the device when it is back or not, whichever step it comes back at.
TEST_F(Survival, AnyStageKilledAtAnyMomentMayComeBack) {
    std::mt19937 random(full() ? std::random_device()() : 11U);
    const int rounds = full() ? 20 : 2;
    const std::string file = cluster(3);
    for (int round = 0; round < rounds; ++round) {
        const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
        const std::string name = "return" + std::to_string(round);
        auto train = start(name, {"--cluster", file, "--bind", portal});
        const auto stage = [&](std::size_t device) {
            return std::make_unique<Process>(Flags{"ecopipe-stage", "--join", portal, "--name",
                                                   "d" + std::to_string(device), "--slowdown",
                                                   "2"});
        };
        std::vector<std::unique_ptr<Process>> stages;
        for (std::size_t device = 0; device < 3; ++device) stages.push_back(stage(device));
        const std::size_t victim = random() % 3;
        reach(name, 1 + static_cast<long>(random() % 45), *train);
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 20000));
        stages[victim]->signal(SIGKILL);
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % 400));
        // At once, it may be refused as its own double until its old connection is known to be
        // gone.
        auto again = stage(victim);
        expect_survived(name, *train);
        if (HasFatalFailure()) return;
        EXPECT_NE(metrics(name).find("\"devices\":[\"d" + std::to_string(victim) + "\"]"),
                  std::string::npos)
            << train->err();
        for (std::size_t device = 0; device < 3; ++device) {
            if (device == victim) continue;
            EXPECT_EQ(stages[device]->wait(kDeadlineS).code, 0) << stages[device]->err();
        }
    }
}

TEST_F(Survival, AHungStageIsNamedAndReplaced) {
    auto train = start("hung", {"--local", "--cluster", cluster(3)});
    reach("hung", 15, *train);
    const pid_t stage = stage_of(*train, "d1");
    ::kill(stage, SIGSTOP);
    expect_survived("hung", *train);
    EXPECT_NE(train->err().find("device d1 (stage "), std::string::npos) << train->err();
    EXPECT_NE(train->err().find("it has said nothing for"), std::string::npos) << train->err();
    EXPECT_NE(train->err().find("micro-batch"), std::string::npos) << train->err();
    EXPECT_NE(::kill(stage, 0), 0);
}

// What its portal said of the life before is still on its way when it joins again.
TEST_F(Survival, AStageThatWasStoppedForAWhileJoinsAgain) {
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    auto train = start("stopped", {"--cluster", cluster(3), "--bind", portal}, "200");
    const auto stage = [&](const std::string& name) {
        return std::make_unique<Process>(Flags{"ecopipe-stage", "--join", portal, "--name", name,
                                               "--slowdown", "3", "--stay", "--orphan", "wait"});
    };
    auto d0 = stage("d0");
    auto d1 = stage("d1");
    auto d2 = stage("d2");
    reach("stopped", 10, *train);
    d1->signal(SIGSTOP);
    std::this_thread::sleep_for(std::chrono::seconds(6));
    d1->signal(SIGCONT);
    expect_survived("stopped", *train, 200);
    for (auto* process : {&d0, &d1, &d2}) {
        EXPECT_TRUE((*process)->running()) << (*process)->err();
        (*process)->signal(SIGTERM);
    }
    for (auto* process : {&d0, &d1, &d2})
        EXPECT_EQ((*process)->wait(kDeadlineS).code, 128 + SIGTERM) << (*process)->err();
}

// The time that it was away itself says nothing of its devices.
TEST_F(Survival, APortalThatWasStoppedForAWhileLosesNobody) {
    auto train = start("paused", {"--local", "--cluster", cluster(3)});
    for (const long steps : {10, 30}) {
        reach("paused", steps, *train);
        train->signal(SIGSTOP);
        std::this_thread::sleep_for(std::chrono::seconds(4));
        train->signal(SIGCONT);
    }
    expect_survived("paused", *train);
    EXPECT_EQ(metrics("paused").find("\"lost\""), std::string::npos) << train->err();
}

// A stage waits for the next one to take an evaluation's tensors, and that one is gone too.
TEST_F(Survival, APortalKilledInAnEvaluationLeavesNoStageBehind) {
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    // The first layer's outputs are the largest.
    std::string plan = hand_plan(model_, 2, "gpipe", 50, 4);
    for (const auto& [found, wanted] : {std::pair{R"("last_layer":5)", R"("last_layer":0)"},
                                        std::pair{R"("first_layer":6)", R"("first_layer":1)"}}) {
        ASSERT_NE(plan.find(found), std::string::npos) << plan;
        plan.replace(plan.find(found), std::strlen(found), wanted);
    }
    write(directory_ / "plan.json", plan);
    Process train({"ecopipe-train", "--cluster", cluster(2), "--plan", directory_ / "plan.json",
                   "--bind", portal, "--model", "lenet5", "--data", "fashion-mnist", "--data-limit",
                   "100", "--epochs", "1", "--quiet", "--out", directory_ / "evaluation"});
    Process d0({"ecopipe-stage", "--join", portal, "--name", "d0"});
    Process d1({"ecopipe-stage", "--join", portal, "--name", "d1", "--slowdown", "100"});
    reach("evaluation", 2, train);
    std::this_thread::sleep_for(std::chrono::seconds(3));
    EXPECT_EQ(metrics("evaluation").find("\"split\""), std::string::npos);
    d1.signal(SIGSTOP);
    train.signal(SIGKILL);
    EXPECT_EQ(d0.wait(kDeadlineS).code, 4) << d0.err();
    d1.signal(SIGCONT);
    EXPECT_EQ(d1.wait(kDeadlineS).code, 4) << d1.err();
}

// With a recovery point after each step: nothing of the step itself is replayed, and what belongs
// to it (the evaluation, the best weights, the checkpoint, the decision to stop) is done all the
// same.
TEST_F(Survival, AStageKilledInEachEvaluationChangesNothing) {
    const Flags training{"--model",
                         "lenet5",
                         "--data",
                         "fashion-mnist",
                         "--data-limit",
                         "2000",
                         "--validation-fraction",
                         "0.8",
                         "--batch",
                         "50",
                         "--micro-batches",
                         "4",
                         "--epochs",
                         "4",
                         "--early-stop",
                         "2",
                         "--seed",
                         "5",
                         "--checkpoint-every",
                         "1",
                         "--quiet"};
    const auto with = [&](Flags line) {
        line.insert(line.end(), training.begin(), training.end());
        return line;
    };
    ASSERT_EQ(run(with({"ecopipe-train", "--single", "--out", directory_ / "calm"})).code, 0);
    Process train(
        with({"ecopipe-train", "--local", "--cluster", cluster(4), "--out", directory_ / "hit"}));
    for (const long epoch : {1, 2, 3}) {
        reach("hit", 8 * epoch, train);
        const std::string err = train.err();
        const std::size_t last_stage = err.rfind("stage on ");
        ASSERT_NE(last_stage, std::string::npos) << err;
        ::kill(stage_of(train, err.substr(last_stage + 9, 2)), SIGKILL);
    }
    const Finished finished = train.wait(kDeadlineS);
    ASSERT_EQ(finished.code, 0) << finished.err;
    for (const char* file : {"model.safetensors", "best.safetensors"})
        EXPECT_TRUE(read(directory_ / (std::string("hit/") + file)) ==
                    read(directory_ / (std::string("calm/") + file)))
            << file << "\n"
            << finished.err;
    const auto evaluations = [&](const std::string& name) {
        std::string found;
        std::istringstream lines(metrics(name));
        for (std::string line; std::getline(lines, line);)
            if (line.find("\"split\"") != std::string::npos) found += line + "\n";
        return found;
    };
    EXPECT_EQ(evaluations("hit"), evaluations("calm"));
    const std::string newest = "hit/checkpoints/step-000000000032.checkpoint";
    EXPECT_FALSE(read(directory_ / newest).empty()) << finished.err;
    std::size_t lost = 0;
    for (std::size_t at = 0; (at = finished.err.find("was lost: its", at)) != std::string::npos;
         ++at)
        ++lost;
    EXPECT_EQ(lost, 3U) << finished.err;
}

TEST_F(Survival, TwoOfFourStagesKilledAtOnceComeFromTheCheckpoint) {
    auto train = start("two", {"--local", "--cluster", cluster(4), "--checkpoint-every", "7"});
    reach("two", 25, *train);
    const pid_t a = stage_of(*train, "d1");
    const pid_t b = stage_of(*train, "d3");  // the one with the most room keeps d1's replica
    ::kill(a, SIGKILL);
    ::kill(b, SIGKILL);
    expect_survived("two", *train);
    const std::string text = metrics("two");
    const std::size_t from = text.find("\"replayed_from_step\":");
    ASSERT_NE(from, std::string::npos) << train->err();
    EXPECT_EQ(std::stol(text.substr(from + 21)) % 7, 1) << train->err();
}

TEST_F(Survival, WithoutReplicasTheCheckpointServes) {
    auto train = start("bare", {"--local", "--cluster", cluster(3), "--replicas", "off",
                                "--checkpoint-every", "9"});
    reach("bare", 22, *train);
    ::kill(stage_of(*train, "d0"), SIGKILL);
    expect_survived("bare", *train);
    EXPECT_NE(train->err().find("no replicas (--replicas off)"), std::string::npos);
    EXPECT_NE(metrics("bare").find("\"replayed_from_step\":"), std::string::npos);
}

TEST_F(Survival, AKilledPortalIsResumedOnAnotherNumberOfDevices) {
    auto train = start("portal", {"--local", "--cluster", cluster(3), "--checkpoint-every", "8"});
    reach("portal", 30, *train);
    train->signal(SIGKILL);
    static_cast<void>(train->wait(kDeadlineS));
    auto resumed = start(
        "portal", {"--local", "--cluster", cluster(2), "--checkpoint-every", "8", "--resume"});
    expect_survived("portal", *resumed);
    EXPECT_NE(resumed->err().find("resuming from the checkpoint of step"), std::string::npos)
        << resumed->err();
}

TEST_F(Survival, ChangedFlagsAndDamagedCheckpointsAreFoundOnResume) {
    auto train = start("damaged", {"--single", "--checkpoint-every", "6"}, "20");
    ASSERT_EQ(train->wait(kDeadlineS).code, 0) << train->err();
    // Already there, and no --resume.
    EXPECT_EQ(start("damaged", {"--single"}, "20")->wait(kDeadlineS).code, 2);
    const Finished changed =
        start("damaged", {"--single", "--resume", "--lr", "0.02"}, "20")->wait(kDeadlineS);
    EXPECT_EQ(changed.code, 2);
    EXPECT_NE(changed.err.find("--resume: --lr was 0.01 in the checkpoint, found 0.02"),
              std::string::npos)
        << changed.err;
    const std::string newest = directory_ / "damaged/checkpoints/step-000000000018.checkpoint";
    std::string bytes = read(newest);
    ASSERT_GT(bytes.size(), 1000U);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    write(newest, bytes);
    auto resumed = start("damaged", {"--single", "--checkpoint-every", "6", "--resume"}, "60");
    expect_survived("damaged", *resumed);
    EXPECT_NE(resumed->err().find("checkpoint skipped: "), std::string::npos);
    EXPECT_NE(resumed->err().find("resuming from the checkpoint of step 12"), std::string::npos)
        << resumed->err();
}

TEST_F(Survival, ARunThatIsAtWorkIsNotResumed) {
    auto train = start("twice", {"--local", "--cluster", cluster(3)});
    reach("twice", 5, *train);
    auto second = start("twice", {"--local", "--cluster", cluster(3), "--resume"});
    const Finished refused = second->wait(kDeadlineS);
    EXPECT_EQ(refused.code, 2);
    EXPECT_NE(refused.err.find("another process is at work in it"), std::string::npos)
        << refused.err;
    expect_survived("twice", *train);
}

TEST_F(Survival, CtrlCSavesAndResumes) {
    auto train = start("stopped", {"--local", "--cluster", cluster(2)});
    reach("stopped", 13, *train);
    train->signal(SIGINT);
    EXPECT_EQ(train->wait(kDeadlineS).code, 130) << train->err();
    EXPECT_TRUE(children_of(train->pid()).empty());
    auto resumed = start("stopped", {"--single", "--resume"});
    expect_survived("stopped", *resumed);
}

TEST_F(Survival, ALeavingStageHandsItsLayersOverWithoutReplay) {
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    auto train = start("left", {"--cluster", cluster(3), "--bind", portal});
    Process d0({"ecopipe-stage", "--join", portal, "--name", "d0"});
    Process d1({"ecopipe-stage", "--join", portal, "--name", "d1"});
    Process d2({"ecopipe-stage", "--join", portal, "--name", "d2"});
    reach("left", 12, *train);
    d1.signal(SIGTERM);
    EXPECT_EQ(d1.wait(kDeadlineS).code, 143) << d1.err();
    expect_survived("left", *train);
    const std::string text = metrics("left");
    EXPECT_NE(text.find("\"kind\":\"left\",\"cause\":\"d1 leaves\""), std::string::npos) << text;
    EXPECT_EQ(text.find("\"kind\":\"lost\""), std::string::npos);
    EXPECT_EQ(text.find("replayed_from_step"), std::string::npos);
}

TEST_F(Survival, ASlowedStageIsPlannedAroundWithinTenSteps) {
    // Three times as long a run as a move takes to pay, on devices slow enough to measure.
    auto train = start("slowed", {"--local", "--cluster", cluster(3, 0.2)}, "300");
    reach("slowed", 30, *train);
    ::kill(stage_of(*train, "d1"), SIGUSR1);
    const long slowed_at = steps_in("slowed");
    expect_survived("slowed", *train, 300);
    const std::string text = metrics("slowed");
    const std::size_t moved = text.find("\"kind\":\"moved\"");
    ASSERT_NE(moved, std::string::npos) << train->err();
    const std::size_t at = text.find("\"at_step\":", moved);
    EXPECT_LE(std::stol(text.substr(at + 10)), slowed_at + 10) << train->err();
}

TEST_F(Survival, AnotherNumericClassIsSaidAndFinishes) {
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    auto train = start("mixed", {"--cluster", cluster(3), "--bind", portal});
    Process d0({"ecopipe-stage", "--join", portal, "--name", "d0"});
    ::setenv("ATEN_CPU_CAPABILITY", "default", 1);
    ::setenv("OPENBLAS_CORETYPE", "Prescott", 1);
    ::setenv("DNNL_MAX_CPU_ISA", "SSE41", 1);
    Process d1({"ecopipe-stage", "--join", portal, "--name", "d1"});
    for (const char* name : {"ATEN_CPU_CAPABILITY", "OPENBLAS_CORETYPE", "DNNL_MAX_CPU_ISA"})
        ::unsetenv(name);
    Process d2({"ecopipe-stage", "--join", portal, "--name", "d2"});
    reach("mixed", 12, *train);
    d2.signal(SIGKILL);
    const Finished finished = train->wait(kDeadlineS);
    ASSERT_EQ(finished.code, 0) << finished.err;
    expect_whole("mixed", 60);
    EXPECT_NE(finished.err.find("of 2 numeric classes"), std::string::npos) << finished.err;
    EXPECT_NE(finished.err.find("d1 with libtorch "), std::string::npos) << finished.err;
    EXPECT_EQ(finished.err.find("damaged"), std::string::npos);
}

// A file system of its own, which only the training sees, of `size`; `script` is run by sh with
// $DISK its directory, and what it leaves there is found under "disk" afterwards.
class SmallDisk : public Survival {
  protected:
    Finished on_disk(const std::string& size, const std::string& script) {
        const std::string mount = directory_ / "mount";
        const std::string text = "mkdir -p " + mount + " && mount -t tmpfs -o size=" + size +
                                 " none " + mount + " || exit 99\nDISK=" + mount + "\n" + script +
                                 "\ncode=$?\ncp -r $DISK " + (directory_ / "disk") +
                                 "\nexit $code\n";
        write(directory_ / "disk.sh", text);
        return run(with_own_mounts({"/bin/sh", directory_ / "disk.sh"}));
    }
    [[nodiscard]] std::string train(const std::string& more, const std::string& steps) const {
        std::string line = program("ecopipe-train") + " --single --model lenet5 --no-evaluation " +
                           "--quiet --optimizer adam --checkpoint-every 6 " + more;
        for (const std::string& flag : flags(steps)) line += " " + flag;
        return line;
    }
    [[nodiscard]] std::string on_disk_file(const std::string& name) const {
        return read(directory_ / ("disk/" + name));
    }
};

TEST_F(SmallDisk, AFullDiskIsSaidAndEarlierCheckpointsStay) {
    // Room for two checkpoints of 745 kB and the model, not for the third that is written beside
    // them.
    const Finished finished = on_disk("1900k", train("--out $DISK/run", "60"));
    EXPECT_EQ(finished.code, 0) << finished.err;
    EXPECT_NE(finished.err.find("checkpoint of step 18: "), std::string::npos) << finished.err;
    EXPECT_NE(finished.err.find("No space left on device"), std::string::npos) << finished.err;
    ASSERT_FALSE(on_disk_file("run/checkpoints/step-000000000012.checkpoint").empty());
    // What stands there is whole: the run goes on from it, to the same bytes.
    ASSERT_EQ(run({"/bin/cp", "-r", directory_ / "disk/run", directory_ / "resumed"}).code, 0);
    auto resumed = start("resumed", {"--single", "--resume", "--optimizer", "adam"});
    const Finished second = resumed->wait(kDeadlineS);
    ASSERT_EQ(second.code, 0) << second.err;
    EXPECT_NE(second.err.find("resuming from the checkpoint of step 12"), std::string::npos)
        << second.err;
    expect_whole("resumed", 60);
    EXPECT_TRUE(read(directory_ / "resumed/model.safetensors") ==
                on_disk_file("run/model.safetensors"));
}

// Another program takes the last byte in the middle of a run, and gives it back.
TEST_F(SmallDisk, LinesThatFindNoRoomComeWhenThereIsSome) {
    const Finished finished = on_disk(
        "3000k", train("--out $DISK/run", "400") +
                     " 2> $DISK.log & pid=$!\n"
                     "until [ -s $DISK/run/metrics.jsonl ]; do sleep 0.02; done\n"
                     "dd if=/dev/zero of=$DISK/filler bs=4k 2> /dev/null\n"
                     "until grep -q 'wait in memory' $DISK.log; do kill -0 $pid || break; "
                     "sleep 0.02; done\n"
                     "rm $DISK/filler; wait $pid; code=$?; cat $DISK.log >&2; (exit $code)");
    ASSERT_EQ(finished.code, 0) << finished.err;
    EXPECT_NE(finished.err.find("metrics.jsonl: cannot write: No space left on device; its lines "
                                "wait in memory"),
              std::string::npos)
        << finished.err;
    EXPECT_NE(finished.err.find("metrics.jsonl: it is written again"), std::string::npos)
        << finished.err;
    ASSERT_EQ(run({"/bin/cp", "-r", directory_ / "disk/run", directory_ / "filled"}).code, 0);
    expect_whole("filled", 400);
}

TEST_F(SmallDisk, AResultThatFindsNoRoomEndsTheRunWithALine) {
    const Finished model = on_disk("900k", train("--out $DISK/run", "20"));
    EXPECT_EQ(model.code, 1);
    EXPECT_NE(model.err.find("model.safetensors: cannot write: No space left on device"),
              std::string::npos)
        << model.err;
    EXPECT_FALSE(on_disk_file("run/checkpoints/step-000000000006.checkpoint").empty());
}

TEST_F(SmallDisk, AReadOnlyDirectoryIsRefusedBeforeTraining) {
    const Finished finished =
        on_disk("10m", train("--out $DISK/run", "20") + " || exit 98\nmount -o remount,ro $DISK\n" +
                           train("--out $DISK/other", "20") + " && exit 97\n" +
                           train("--out $DISK/run --resume", "30"));
    EXPECT_EQ(finished.code, 1) << finished.err;
    EXPECT_NE(finished.err.find("other: cannot create: Read-only file system"), std::string::npos)
        << finished.err;
    EXPECT_NE(finished.err.find("run: cannot be written"), std::string::npos) << finished.err;
    EXPECT_FALSE(on_disk_file("run/checkpoints/step-000000000018.checkpoint").empty());
}

TEST_F(Survival, ACheckpointThatCannotBeWrittenIsSaidAndTrainingGoesOn) {
    write(directory_ / "full.sh", "mkdir -p $1 && touch $1/checkpoints\n");
    ASSERT_EQ(run({"/bin/sh", directory_ / "full.sh", directory_ / "unwritable"}).code, 0);
    auto train = start("unwritable", {"--single", "--checkpoint-every", "6", "--resume"});
    expect_survived("unwritable", *train);
    EXPECT_NE(train->err().find("checkpoint of step 6: "), std::string::npos) << train->err();
}

}  // namespace
}  // namespace ecopipe::test
