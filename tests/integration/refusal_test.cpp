// Bad input and dying devices: an exit code, one clear line, no hang, nothing half-written, no
// process left.
#include <signal.h>

#include <algorithm>
#include <filesystem>

#include "tests/integration/training_fixture.h"

namespace ecopipe::test {
namespace {

constexpr double kRefusalS = 60;

class Refusal : public Training {
  protected:
    // Runs ecopipe-train with these flags; the last line of stderr must contain `text`.
    void expect_refused(Flags flags, int code, const std::string& text) {
        flags.insert(flags.begin(), "ecopipe-train");
        const Finished finished = run(flags, kRefusalS);
        EXPECT_EQ(finished.code, code) << finished.err;
        std::string err = finished.err;
        while (!err.empty() && err.back() == '\n') err.pop_back();
        const std::string line =
            err.substr(err.rfind('\n') == std::string::npos ? 0 : err.rfind('\n') + 1);
        EXPECT_NE(line.find(text), std::string::npos) << finished.err;
        EXPECT_TRUE(line.starts_with("ecopipe-train: ")) << line;
        EXPECT_FALSE(exists(directory_ / "out/model.safetensors"));
    }
    Flags with(const Flags& more) {
        Flags flags{"--data",          "fashion-mnist", "--data-limit",    "100", "--steps", "4",
                    "--no-evaluation", "--out",         directory_ / "out"};
        flags.insert(flags.end(), more.begin(), more.end());
        return flags;
    }
    std::string plan(const std::string& text) {
        write(directory_ / "plan.json", text);
        return directory_ / "plan.json";
    }
    const ModelCase lenet_{"lenet5", "lenet5", 12};
};

TEST_F(Refusal, UnknownModelAndBadNumbers) {
    expect_refused(with({"--single", "--model", "lenet6"}), 2, "--model: expected one of");
    expect_refused(with({"--single", "--model", "lenet5", "--lr", "nan"}), 2,
                   "--lr: expected a number");
    expect_refused(
        with({"--single", "--model", "mobilenet_v2", "--batch", "4", "--micro-batches", "4"}), 2,
        "use fewer micro-batches");
    EXPECT_FALSE(exists(directory_ / "out/metrics.jsonl") &&
                 !read(directory_ / "out/metrics.jsonl").empty());
}

TEST_F(Refusal, PlansThatDoNotFit) {
    const auto with_plan = [&](const std::string& text, const Flags& more = {}) {
        Flags flags{"--local", "--model", "lenet5", "--plan", plan(text)};
        flags.insert(flags.end(), more.begin(), more.end());
        return with(flags);
    };
    expect_refused(with_plan(hand_plan({"", "fashion_cnn", 11}, 2, "1f1b", 32, 4)), 3,
                   "model: expected lenet5, found fashion_cnn");
    expect_refused(with_plan(hand_plan({"", "lenet5", 11}, 2, "1f1b", 32, 4)), 3,
                   "expected 12 layers as the model has, found 11");
    std::string twice = hand_plan(lenet_, 2, "1f1b", 32, 4);
    twice.replace(twice.find("\"d1\""), 4, "\"d0\"");
    expect_refused(with_plan(twice), 3, "expected a device of its own for every stage");
    expect_refused(with_plan(hand_plan(lenet_, 2, "1f1b", 32, 4), {"--batch", "64"}), 2,
                   "--batch is 32 in the plan, 64 here");
    expect_refused(with_plan("{\"schema\": \"ecopipe.plan/1\""), 3, "not valid JSON");
    expect_refused(with_plan("[[[["), 3, "plan.json");
}

TEST_F(Refusal, ClustersThatMakeNoSense) {
    const auto with_cluster = [&](const std::string& devices) {
        write(directory_ / "cluster.yaml",
              "name: home\nportal: hub\nportal_address: 127.0.0.1\ndevices:\n" + devices +
                  "default_link: {mbps: 100, latency_ms: 1}\n");
        return with({"--local", "--model", "lenet5", "--cluster", directory_ / "cluster.yaml"});
    };
    expect_refused(with_cluster("  - {name: hub, memory_mib: -5, speed: 1}\n"), 3, "memory_mib");
    expect_refused(
        with_cluster(
            "  - {name: hub, memory_mib: 5, speed: 1}\n  - {name: hub, memory_mib: 5, speed: 1}\n"),
        3, "hub");
    expect_refused(with_cluster("  - {name: hub, memory_mib: 5, colour: red}\n"), 3, "colour");
    expect_refused(with({"--local", "--model", "lenet5", "--cluster", directory_ / "none.yaml"}), 3,
                   "none.yaml");
}

// --local and a plan need no address, devices that dial in do; and it is one that can be dialled.
TEST_F(Refusal, APortalThatNobodyCouldDial) {
    const auto with_address = [&](const std::string& address, const Flags& more = {}) {
        write(directory_ / "cluster.yaml",
              "name: home\nportal: hub\n" + address +
                  "devices:\n  - {name: hub, memory_mib: 1000, speed: 1}\n");
        Flags flags{"--model", "lenet5", "--cluster", directory_ / "cluster.yaml"};
        flags.insert(flags.end(), more.begin(), more.end());
        return with(flags);
    };
    expect_refused(with_address(""), 3,
                   "cluster.yaml: portal_address: expected the address that devices dial");
    expect_refused(with_address("portal_address: 127.0.0.1:5599\n"), 3,
                   "portal_address: expected a host's name or address, found '127.0.0.1:5599'");
    expect_refused(with_address("portal_address: \"fd00::1\"\n"), 2,
                   "portal_address: tcp://[fd00::1]:5599 is not a loopback address");
    expect_refused(with_address("", {"--bind", "tcp://::1:5599"}), 2,
                   "--bind: expected tcp://ADDRESS:PORT, found 'tcp://::1:5599'");
    expect_refused(with_address("portal_address: no-such-host.invalid\n", {"--insecure"}), 4,
                   "no-such-host.invalid: expected a name that has an address");
}

TEST_F(Refusal, APlanBeyondADevicesMemory) {
    write(
        directory_ / "small.yaml",
        "name: home\nportal: d0\nportal_address: 127.0.0.1\ndevices:\n"
        "  - {name: d0, memory_mib: 1024, speed: 0.8}\n  - {name: d1, memory_mib: 60, speed: 0.8}\n"
        "default_link: {mbps: 1000, latency_ms: 0.1}\n");
    expect_refused(
        with({"--local", "--cluster", directory_ / "small.yaml", "--model", "lenet5", "--batch",
              "32", "--micro-batches", "4", "--plan", plan(hand_plan(lenet_, 2, "1f1b", 32, 4))}),
        3, "device d1: its layers need");
}

TEST_F(Refusal, SchedulesThatWouldAddUpInAnotherOrder) {
    write(directory_ / "lifo.csv", "F0,F1,F2,F3,B3,B2,B1,B0\n");
    write(directory_ / "one.yaml",
          "name: home\nportal: d0\nportal_address: 127.0.0.1\ndevices:\n"
          "  - {name: d0, memory_mib: 1024, speed: 0.8}\n");
    expect_refused(
        with({"--local", "--cluster", directory_ / "one.yaml", "--model", "lenet5", "--batch", "32",
              "--micro-batches", "4", "--schedule", directory_ / "lifo.csv"}),
        2, "B3 stands where B0 was expected");
}

TEST_F(Refusal, AutomaticMicroBatchesWithoutAPlanner) {
    expect_refused(with({"--single", "--model", "lenet5", "--micro-batches", "auto"}), 2,
                   "--micro-batches auto");
    expect_refused(with({"--single", "--model", "lenet5", "--micro-batches", "3,4"}), 2,
                   "--micro-batches: expected one number or auto");
    expect_refused(with({"--single", "--model", "lenet5", "--measure-links"}), 2,
                   "--measure-links needs --cluster");
}

TEST_F(Refusal, UnreadableDataAndUsedDirectories) {
    expect_refused({"--single", "--model", "lenet5", "--data", "idx:" + directory_.path(), "--out",
                    directory_ / "out"},
                   3, "train-images-idx3-ubyte");
    ASSERT_EQ(
        run({"ecopipe-train", "--single", "--model", "lenet5", "--data", "synthetic:1x28x28:10:50",
             "--steps", "1", "--quiet", "--no-evaluation", "--out", directory_ / "used"})
            .code,
        0);
    const std::string model = read(directory_ / "used/model.safetensors");
    expect_refused({"--single", "--model", "lenet5", "--data", "synthetic:1x28x28:10:50", "--steps",
                    "1", "--out", directory_ / "used"},
                   2, "holds a run already");
    EXPECT_EQ(read(directory_ / "used/model.safetensors"), model);
}

TEST_F(Refusal, APortInUse) {
    write(directory_ / "plan.json", hand_plan(lenet_, 1, "1f1b", 32, 4));
    const std::string bind = "tcp://127.0.0.1:" + std::to_string(free_port());
    Process first({"ecopipe-train", "--model", "lenet5", "--data", "fashion-mnist", "--plan",
                   directory_ / "plan.json", "--out", directory_ / "first", "--bind", bind});
    ASSERT_TRUE(first.wait_for_err("waiting on", kRefusalS)) << first.err();
    expect_refused(with({"--model", "lenet5", "--plan", directory_ / "plan.json", "--bind", bind}),
                   4, "cannot listen");
    first.signal(SIGINT);
    EXPECT_EQ(first.wait(kRefusalS).code, 130);
}

TEST_F(Refusal, AStageThatNeverJoinsIsNamedWithItsCommand) {
    write(directory_ / "plan.json", hand_plan(lenet_, 2, "1f1b", 32, 4));
    Flags flags = with({"--model", "lenet5", "--plan", directory_ / "plan.json", "--bind",
                        "tcp://127.0.0.1:0", "--join-timeout-s", "1"});
    flags.insert(flags.begin(), "ecopipe-train");
    const Finished finished = run(flags, kRefusalS);
    EXPECT_EQ(finished.code, 4) << finished.err;
    EXPECT_NE(finished.err.find("--name d1"), std::string::npos) << finished.err;
    EXPECT_NE(finished.err.find("d0, d1 did not join within 1 s"), std::string::npos)
        << finished.err;
}

// However slow the machine is to start them: so long and no longer.
TEST_F(Refusal, ALocalStageIsWaitedForAsLongAsIsSaid) {
    write(directory_ / "plan.json", hand_plan(lenet_, 2, "1f1b", 32, 4));
    expect_refused(with({"--model", "lenet5", "--local", "--plan", directory_ / "plan.json",
                         "--join-timeout-s", "0.1"}),
                   4, "d0, d1 did not join within 0.1 s");
}

TEST_F(Refusal, AStrangerNameAndASecondOfOneNameAreTurnedAway) {
    write(directory_ / "plan.json", hand_plan(lenet_, 2, "1f1b", 32, 4));
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    Process train({"ecopipe-train", "--model", "lenet5", "--data", "fashion-mnist", "--plan",
                   directory_ / "plan.json", "--out", directory_ / "out", "--bind", portal});
    ASSERT_TRUE(train.wait_for_err("waiting on", kRefusalS));
    Process d0({"ecopipe-stage", "--join", portal, "--name", "d0"});
    ASSERT_TRUE(train.wait_for_err("d0 joined", kRefusalS));
    const Finished stranger =
        run({"ecopipe-stage", "--join", portal, "--name", "nobody"}, kRefusalS);
    EXPECT_EQ(stranger.code, 2);
    EXPECT_NE(stranger.err.find("no device of the cluster is named nobody"), std::string::npos)
        << stranger.err;
    const Finished second = run({"ecopipe-stage", "--join", portal, "--name", "d0"}, kRefusalS);
    EXPECT_EQ(second.code, 2);
    EXPECT_NE(second.err.find("has already joined"), std::string::npos) << second.err;
    train.signal(SIGTERM);
    EXPECT_EQ(train.wait(kRefusalS).code, 143);
    EXPECT_NE(d0.wait(kRefusalS).code, -1);
}

TEST_F(Refusal, ARunThatHasLostEveryStageEndsWithOneLine) {
    write(directory_ / "plan.json", hand_plan(lenet_, 3, "1f1b", 32, 4));
    Process train({"ecopipe-train", "--local", "--model", "lenet5", "--data", "fashion-mnist",
                   "--steps", "100000", "--plan", directory_ / "plan.json", "--out",
                   directory_ / "out"});
    ASSERT_TRUE(train.wait_for_err("step ", kRefusalS)) << train.err();
    const auto stages = children_of(train.pid());
    ASSERT_EQ(stages.size(), 3U);
    for (const pid_t stage : stages) ::kill(stage, SIGKILL);
    const Finished finished = train.wait(kRefusalS);
    EXPECT_EQ(finished.code, 4) << finished.err;
    EXPECT_NE(finished.err.find("ecopipe-train: device d"), std::string::npos) << finished.err;
    EXPECT_NE(finished.err.find("was lost at step"), std::string::npos) << finished.err;
    EXPECT_NE(finished.err.find("over no device there is no plan"), std::string::npos)
        << finished.err;
    EXPECT_FALSE(exists(directory_ / "out/model.safetensors"));
    for (const pid_t stage : stages)
        EXPECT_NE(::kill(stage, 0), 0) << "stage " << stage << " is still there";
}

TEST_F(Refusal, AStageThatHangsIsNamedWithinItsDeadline) {
    write(directory_ / "plan.json", hand_plan(lenet_, 1, "1f1b", 32, 4));
    Process train({"ecopipe-train", "--local", "--model", "lenet5", "--data", "fashion-mnist",
                   "--steps", "100000", "--peer-timeout-s", "1", "--plan", directory_ / "plan.json",
                   "--out", directory_ / "out"});
    ASSERT_TRUE(train.wait_for_err("step ", kRefusalS)) << train.err();
    const auto stages = children_of(train.pid());
    ASSERT_EQ(stages.size(), 1U);
    ::kill(stages[0], SIGSTOP);
    const Finished finished = train.wait(kRefusalS);
    EXPECT_EQ(finished.code, 4) << finished.err;
    EXPECT_NE(finished.err.find("it has said nothing for 1."), std::string::npos) << finished.err;
    for (const pid_t stage : stages)
        EXPECT_NE(::kill(stage, 0), 0) << "stage " << stage << " is still there";
}

TEST_F(Refusal, StagesOfADeadPortalEndThemselves) {
    write(directory_ / "plan.json", hand_plan(lenet_, 1, "1f1b", 32, 4));
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    Process train({"ecopipe-train", "--model", "lenet5", "--data", "fashion-mnist", "--steps",
                   "100000", "--peer-timeout-s", "1", "--plan", directory_ / "plan.json", "--out",
                   directory_ / "out", "--bind", portal});
    Process d0({"ecopipe-stage", "--join", portal, "--name", "d0"});
    ASSERT_TRUE(train.wait_for_err("step ", kRefusalS)) << train.err();
    train.signal(SIGKILL);
    const Finished stage = d0.wait(kRefusalS);
    EXPECT_EQ(stage.code, 4) << stage.err;
    EXPECT_NE(stage.err.find("has said nothing for"), std::string::npos) << stage.err;
}

// Found by use: a stage that stays knocked on the portal whose run had just ended, and was refused
// as its own double.
TEST_F(Refusal, AStageThatStaysServesRunAfterRun) {
    write(directory_ / "plan.json", hand_plan(lenet_, 1, "1f1b", 32, 4));
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    Process d0({"ecopipe-stage", "--join", portal, "--name", "d0", "--stay"});
    for (const char* out : {"one", "two", "three"}) {
        const Finished trained =
            run({"ecopipe-train", "--model", "lenet5", "--data", "synthetic:1x28x28:10:64",
                 "--plan", directory_ / "plan.json", "--bind", portal, "--no-evaluation", "--quiet",
                 "--out", directory_ / out},
                kRefusalS);
        EXPECT_EQ(trained.code, 0) << trained.err << d0.err();
    }
    d0.signal(SIGTERM);
    EXPECT_EQ(d0.wait(kRefusalS).code, 143) << d0.err();
}

// A TorchScript file is code: the portal names it by its hash, and a stage takes it from one
// directory.
TEST_F(Refusal, ATorchScriptFileIsLoadedFromTheModelsDirectoryAlone) {
    const ModelCase model = torchscript("strided", 12);
    write(directory_ / "plan.json", hand_plan(model, 1, "1f1b", 32, 4));
    const std::string models = directory_ / "models";
    std::filesystem::create_directory(models);
    std::filesystem::create_directory(models + "/below");
    std::filesystem::copy_file(model.model, models + "/below/model.pt");
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    Process d0({"ecopipe-stage", "--join", portal, "--name", "d0", "--models", models});
    expect_refused(
        with({"--model", model.model, "--plan", directory_ / "plan.json", "--bind", portal}), 3,
        "is not in " + models + "; copy it there");
    EXPECT_EQ(d0.wait(kRefusalS).code, 3) << d0.err();
}

TEST_F(Refusal, ADataPortThatCannotBeReachedIsNamedWithItsAddress) {
    write(directory_ / "plan.json", hand_plan(lenet_, 1, "1f1b", 32, 4));
    const std::string portal = "tcp://127.0.0.1:" + std::to_string(free_port());
    Process d0({"ecopipe-stage", "--join", portal, "--name", "d0", "--data-address", "127.77.0.1"});
    expect_refused(
        with({"--model", "lenet5", "--plan", directory_ / "plan.json", "--bind", portal}), 4,
        "device d0 has joined, but its data port cannot be reached at tcp://127.77.0.1:");
    EXPECT_EQ(d0.wait(kRefusalS).code, 4) << d0.err();
}

TEST_F(Refusal, ALossThatBecomesNaNIsNeverCommitted) {
    write(directory_ / "plan.json", hand_plan(lenet_, 2, "1f1b", 32, 4));
    expect_refused(
        with({"--local", "--model", "lenet5", "--plan", directory_ / "plan.json", "--lr", "1e6"}),
        1, "is not a finite number; the step was not applied");
    for (const std::string& line : {read(directory_ / "out/metrics.jsonl")})
        EXPECT_EQ(line.find("null"), std::string::npos) << line;
}

TEST_F(Refusal, CtrlCSavesAfterAWholeStepAndTellsEveryStage) {
    write(directory_ / "plan.json", hand_plan(lenet_, 2, "1f1b", 32, 4));
    Process train({"ecopipe-train", "--local", "--model", "lenet5", "--data", "fashion-mnist",
                   "--steps", "100000", "--plan", directory_ / "plan.json", "--out",
                   directory_ / "out"});
    ASSERT_TRUE(train.wait_for_err("step ", kRefusalS)) << train.err();
    const auto stages = children_of(train.pid());
    train.signal(SIGINT);
    EXPECT_EQ(train.wait(kRefusalS).code, 130);
    EXPECT_TRUE(exists(directory_ / "out/model.safetensors"));
    for (const pid_t stage : stages)
        EXPECT_NE(::kill(stage, 0), 0) << "stage " << stage << " is still there";
}

TEST_F(Refusal, EveryProgramRefusesUnknownFlagsAndHasHelpAndVersion) {
    for (const char* program : {"ecopipe-train", "ecopipe-stage", "ecopipe-profile", "ecopipe-plan",
                                "ecopipe-fl-server"}) {
        const Finished unknown = run({program, "--colour", "red"});
        EXPECT_EQ(unknown.code, 2) << program;
        EXPECT_EQ(std::count(unknown.err.begin(), unknown.err.end(), '\n'), 1) << unknown.err;
        const Finished help = run({program, "--help"});
        EXPECT_EQ(help.code, 0) << program;
        EXPECT_NE(help.out.find("--log-level"), std::string::npos) << program;
        EXPECT_EQ(run({program, "--version"}).out, std::string(program) + " 0.1.0\n");
    }
}

}  // namespace
}  // namespace ecopipe::test
