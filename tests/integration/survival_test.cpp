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

#include "tests/integration/survival_fixture.h"

namespace ecopipe::test {
namespace {

TEST_F(Survival, AnyStageKilledAtAnyMoment) {
    const Flags local{"--local", "--cluster", cluster_of_stages(3)};
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
    const std::string file = cluster_of_stages(3);
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
    ASSERT_TRUE(train->wait_for_err("recovered in", kSurvivalDeadlineS)) << train->err();
    auto again = stage("d1");
    ASSERT_TRUE(train->wait_for_err("d1 joined: the best plan now takes", kSurvivalDeadlineS))
        << train->err();
    expect_survived("back", *train, 400);
    EXPECT_NE(metrics("back").find("\"kind\":\"moved\",\"cause\":\"d1 joined\""), std::string::npos)
        << train->err();
    for (auto* process : {&d0, &d2, &again})
        EXPECT_EQ((*process)->wait(kSurvivalDeadlineS).code, 0);
}

// Started again before anybody has noticed that it was killed, as systemd does: while devices are
// waited for as in the middle of training.
TEST_F(Survival, AStageStartedAgainAtOnceIsNotTakenForASecondOne) {
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    auto train = start("at-once", {"--cluster", cluster_of_stages(3), "--bind", portal}, "200");
    const auto stage = [&](const std::string& name) {
        return std::make_unique<Process>(
            Flags{"ecopipe-stage", "--join", portal, "--name", name, "--slowdown", "3"});
    };
    auto d0 = stage("d0");
    ASSERT_TRUE(train->wait_for_err("d0 joined", kSurvivalDeadlineS)) << train->err();
    d0->signal(SIGKILL);
    auto d0_again = stage("d0");
    auto d1 = stage("d1");
    auto d2 = stage("d2");
    reach("at-once", 10, *train);
    d1->signal(SIGKILL);
    auto d1_again = stage("d1");
    expect_survived("at-once", *train, 200);
    for (auto* process : {&d0_again, &d1_again, &d2})
        EXPECT_EQ((*process)->wait(kSurvivalDeadlineS).code, 0) << (*process)->err();
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
    for (auto* process : {&d0, &d1, &d2}) EXPECT_EQ((*process)->wait(kSurvivalDeadlineS).code, 0);
}

// Whether the run still needs the device when it is back or not, whichever step it comes back at.
TEST_F(Survival, AnyStageKilledAtAnyMomentMayComeBack) {
    std::mt19937 random(full() ? std::random_device()() : 11U);
    const int rounds = full() ? 20 : 2;
    const std::string file = cluster_of_stages(3);
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
            EXPECT_EQ(stages[device]->wait(kSurvivalDeadlineS).code, 0) << stages[device]->err();
        }
    }
}

TEST_F(Survival, AHungStageIsNamedAndReplaced) {
    auto train = start("hung", {"--local", "--cluster", cluster_of_stages(3)});
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
    auto train = start("stopped", {"--cluster", cluster_of_stages(3), "--bind", portal}, "200");
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
        EXPECT_EQ((*process)->wait(kSurvivalDeadlineS).code, 128 + SIGTERM) << (*process)->err();
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
    EXPECT_EQ(d0.wait(kSurvivalDeadlineS).code, 4) << d0.err();
    d1.signal(SIGCONT);
    EXPECT_EQ(d1.wait(kSurvivalDeadlineS).code, 4) << d1.err();
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
    const Finished finished = train.wait(kSurvivalDeadlineS);
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
    auto train =
        start("two", {"--local", "--cluster", cluster_of_stages(4), "--checkpoint-every", "7"});
    reach("two", 25, *train);
    const pid_t a = stage_of(*train, "d1");
    const pid_t b = stage_of(*train, "d3");  // the one with the most room keeps d1's replica
    ::kill(a, SIGKILL);
    ::kill(b, SIGKILL);
    expect_survived("two", *train);
    const std::string text = metrics("two");
    const std::size_t from = text.find("\"replayed_from_step\":");
    ASSERT_NE(from, std::string::npos) << train->err();
    // On a busy machine layers may have moved before, and their replicas to others.
    if (train->err().find("a move pays") == std::string::npos) {
        EXPECT_EQ(std::stol(text.substr(from + 21)) % 7, 1) << train->err();
    }
}

TEST_F(Survival, WithoutReplicasTheCheckpointServes) {
    auto train = start("bare", {"--local", "--cluster", cluster_of_stages(3), "--replicas", "off",
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
    static_cast<void>(train->wait(kSurvivalDeadlineS));
    auto resumed = start(
        "portal", {"--local", "--cluster", cluster(2), "--checkpoint-every", "8", "--resume"});
    expect_survived("portal", *resumed);
    EXPECT_NE(resumed->err().find("resuming from the checkpoint of step"), std::string::npos)
        << resumed->err();
}

TEST_F(Survival, ChangedFlagsAndDamagedCheckpointsAreFoundOnResume) {
    auto train = start("damaged", {"--single", "--checkpoint-every", "6"}, "20");
    ASSERT_EQ(train->wait(kSurvivalDeadlineS).code, 0) << train->err();
    // Already there, and no --resume.
    EXPECT_EQ(start("damaged", {"--single"}, "20")->wait(kSurvivalDeadlineS).code, 2);
    const Finished changed =
        start("damaged", {"--single", "--resume", "--lr", "0.02"}, "20")->wait(kSurvivalDeadlineS);
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

// The run is so long that it is at work however long the second program takes to start.
TEST_F(Survival, ARunThatIsAtWorkIsNotResumed) {
    auto train = start("twice", {"--local", "--cluster", cluster(3)}, "1000000");
    reach("twice", 5, *train);
    auto second = start("twice", {"--local", "--cluster", cluster(3), "--resume"}, "1000000");
    const Finished refused = second->wait(kSurvivalDeadlineS);
    EXPECT_EQ(refused.code, 2);
    EXPECT_NE(refused.err.find("another process is at work in it"), std::string::npos)
        << refused.err;
    reach("twice", steps_in("twice") + 1, *train);
    train->signal(SIGINT);
    EXPECT_EQ(train->wait(kSurvivalDeadlineS).code, 130) << train->err();
}

TEST_F(Survival, CtrlCSavesAndResumes) {
    auto train = start("stopped", {"--local", "--cluster", cluster(2)});
    reach("stopped", 13, *train);
    train->signal(SIGINT);
    EXPECT_EQ(train->wait(kSurvivalDeadlineS).code, 130) << train->err();
    EXPECT_TRUE(children_of(train->pid()).empty());
    auto resumed = start("stopped", {"--single", "--resume"});
    expect_survived("stopped", *resumed);
}

TEST_F(Survival, ALeavingStageHandsItsLayersOverWithoutReplay) {
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    auto train = start("left", {"--cluster", cluster_of_stages(3), "--bind", portal});
    Process d0({"ecopipe-stage", "--join", portal, "--name", "d0"});
    Process d1({"ecopipe-stage", "--join", portal, "--name", "d1"});
    Process d2({"ecopipe-stage", "--join", portal, "--name", "d2"});
    reach("left", 12, *train);
    d1.signal(SIGTERM);
    EXPECT_EQ(d1.wait(kSurvivalDeadlineS).code, 143) << d1.err();
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
    const Finished finished = train->wait(kSurvivalDeadlineS);
    ASSERT_EQ(finished.code, 0) << finished.err;
    expect_whole("mixed", 60);
    EXPECT_NE(finished.err.find("of 2 numeric classes"), std::string::npos) << finished.err;
    EXPECT_NE(finished.err.find("d1 with libtorch "), std::string::npos) << finished.err;
    EXPECT_EQ(finished.err.find("damaged"), std::string::npos);
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
