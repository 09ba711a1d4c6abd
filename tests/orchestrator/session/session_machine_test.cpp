#include "orchestrator/session/session_machine.h"

#include <gtest/gtest.h>

#include "tests/orchestrator/plan_of.h"
#include "transport/data/data_plane.h"

namespace ecopipe {
namespace {

using namespace session_event;
using namespace session_outcome;

template <class Outcome>
const Outcome* find(const SessionOutcomes& outcomes) {
    for (const SessionOutcome& outcome : outcomes)
        if (const auto* found = std::get_if<Outcome>(&outcome)) return found;
    return nullptr;
}

const SendConfigure* configure_of(const SessionOutcomes& outcomes, const std::string& device) {
    for (const SessionOutcome& outcome : outcomes)
        if (const auto* found = std::get_if<SendConfigure>(&outcome);
            found != nullptr && found->device == device)
            return found;
    return nullptr;
}

// Before anybody was ever ready, too: it is no fault of the devices that go on.
TEST(Configuring, DevicesThatDoNotReachOneAnotherBreakItOff) {
    SessionMachine machine({0, 1});
    static_cast<void>(machine.on(BaseSet{0}));
    static_cast<void>(
        machine.on(ConfigureWanted{plan_of({{"a", 0, 0}, {"b", 1, 1}}), ReplicaPlan{}, ""}));
    const auto outcomes = machine.on(session_event::Unreachable{"a cannot reach b", {"b"}});
    ASSERT_TRUE(find<Broken>(outcomes));
    EXPECT_EQ(find<Broken>(outcomes)->error.message, "a cannot reach b");
    EXPECT_EQ(find<Broken>(outcomes)->device, "");
    EXPECT_TRUE(machine.broken());
    const auto anew =
        machine.on(ConfigureWanted{plan_of({{"a", 0, 1}}), ReplicaPlan{}, "a cannot reach b"});
    EXPECT_TRUE(configure_of(anew, "a"));
    EXPECT_FALSE(configure_of(anew, "b")) << "it is left alone";
    EXPECT_TRUE(find<AllReady>(machine.on(ReadyReceived{"a", 2})));
    EXPECT_FALSE(find<Broken>(machine.on(session_event::Unreachable{"too late", {}})));
}

// Layers 0 and 1 on a, 2 and 3 on b, each the other's buddy, a snapshot every second step.
class TwoDevices : public testing::Test {
  protected:
    void SetUp() override {
        static_cast<void>(machine_.on(BaseSet{0}));
        const auto outcomes = machine_.on(ConfigureWanted{
            plan_of({{"a", 0, 1}, {"b", 2, 3}}), {{{"a", "b"}, {"b", "a"}}, 2, ""}, ""});
        EXPECT_EQ(configure_of(outcomes, "a")->restore,
                  (std::vector<LayerTransfer>{{0, 1, kPortalPeer}}));
        EXPECT_EQ(configure_of(outcomes, "a")->buddy, "b");
        EXPECT_EQ(find<SupplyFromPortal>(outcomes)->supply.size(), 2U);
        EXPECT_FALSE(find<AllReady>(machine_.on(ReadyReceived{"a", 1})));
        EXPECT_TRUE(find<AllReady>(machine_.on(ReadyReceived{"b", 1})));
    }
    void begin(std::uint64_t step) {
        EXPECT_TRUE(find<SendBegin>(machine_.on(BeginWanted{step, false})));
    }
    // Both finish and commit; whether a snapshot was asked for.
    bool step(std::uint64_t step) {
        begin(step);
        done_by_both(step);
        const auto outcomes = machine_.on(CommitWanted{});
        committed("a", step);
        committed("b", step);
        return find<SendCommit>(outcomes)->snapshot;
    }
    void done_by_both(std::uint64_t step) {
        static_cast<void>(machine_.on(DoneReceived{"a", machine_.generation(), step, {}}));
        static_cast<void>(machine_.on(DoneReceived{"b", machine_.generation(), step, {}}));
    }
    void committed(const std::string& device, std::uint64_t step) {
        static_cast<void>(machine_.on(CommittedReceived{device, machine_.generation(), step}));
    }
    SessionOutcomes stored(const std::string& device, std::uint64_t step, std::uint32_t first,
                           std::uint32_t last) {
        return machine_.on(
            StoredReceived{device, machine_.generation(), step, Stored{first, last}});
    }
    SessionMachine machine_{{0, 1, 2, 3}};
};

TEST_F(TwoDevices, NothingIsDoneBeforeAllSaySo) {
    begin(0);
    EXPECT_TRUE(machine_.on(DoneReceived{"a", 1, 0, {}}).empty());
    EXPECT_TRUE(machine_.on(DoneReceived{"a", 1, 0, {}}).empty());  // twice is once
    EXPECT_TRUE(machine_.on(DoneReceived{"b", 0, 0, {}}).empty());  // an older generation
    EXPECT_TRUE(machine_.on(DoneReceived{"b", 1, 7, {}}).empty());  // another step
    const auto outcomes = machine_.on(DoneReceived{"b", 1, 0, {}});
    ASSERT_TRUE(find<AllDone>(outcomes));
    EXPECT_EQ(find<AllDone>(outcomes)->done.size(), 2U);
}

TEST_F(TwoDevices, CommitAndTheNextBeginOverlap) {
    begin(0);
    done_by_both(0);
    static_cast<void>(machine_.on(CommitWanted{}));
    begin(1);
    EXPECT_FALSE(machine_.all_committed());
    committed("a", 0);
    static_cast<void>(machine_.on(DoneReceived{"a", 1, 1, {}}));
    EXPECT_EQ(machine_.waiting_for(), "b to commit step 1");
    EXPECT_TRUE(find<AllCommitted>(machine_.on(CommittedReceived{"b", 1, 0})));
    EXPECT_TRUE(machine_.all_committed());
    EXPECT_TRUE(find<AllDone>(machine_.on(DoneReceived{"b", 1, 1, {}})));
}

TEST_F(TwoDevices, TheRecoveryPointRisesWhenEveryLayerIsConfirmedTwice) {
    EXPECT_TRUE(step(0));  // the base is on the portal alone: a replica as soon as can be
    EXPECT_TRUE(stored("a", 1, 0, 1).empty());
    EXPECT_TRUE(stored("b", 1, 2, 3).empty());
    EXPECT_TRUE(stored("b", 1, 0, 1).empty());
    const auto begun = machine_.on(BeginWanted{1, false});
    EXPECT_EQ(find<SendBegin>(begun)->recovery_point, 0U);
    EXPECT_TRUE(stored("a", 1, 2, 2).empty());
    EXPECT_TRUE(find<RecoveryPoint>(stored("a", 1, 3, 3)));
    done_by_both(1);
    EXPECT_FALSE(find<SendCommit>(machine_.on(CommitWanted{}))->snapshot);  // every second step
    committed("a", 1);
    committed("b", 1);
    EXPECT_EQ(find<SendBegin>(machine_.on(BeginWanted{2, false}))->recovery_point, 1U);
    done_by_both(2);
    EXPECT_TRUE(find<SendCommit>(machine_.on(CommitWanted{}))->snapshot);
}

TEST_F(TwoDevices, ADeathBetweenCommitAndCommittedGoesBackToTheRecoveryPoint) {
    step(0);
    for (const char* device : {"a", "b"}) static_cast<void>(stored(device, 1, 0, 3));
    step(1);
    begin(2);
    done_by_both(2);
    static_cast<void>(machine_.on(CommitWanted{}));
    committed("a", 2);  // b dies instead of answering: a has applied step 2, and must go back
    const auto lost = machine_.on(DeviceLost{"b", "its connection is gone"});
    ASSERT_TRUE(find<Broken>(lost));
    EXPECT_EQ(find<Broken>(lost)->error.message,
              "device b (stage 1) was lost at step 3: its connection is gone");
    EXPECT_TRUE(machine_.on(BeginWanted{3, false}).empty());  // nothing goes on
    const auto outcomes = machine_.on(ConfigureWanted{plan_of({{"a", 0, 3}}), {}, "b was lost"});
    ASSERT_TRUE(configure_of(outcomes, "a"));
    EXPECT_EQ(configure_of(outcomes, "a")->restore_step, 1U);
    EXPECT_EQ(configure_of(outcomes, "a")->restore, (std::vector<LayerTransfer>{{0, 3, "a"}}));
    EXPECT_FALSE(find<SupplyFromPortal>(outcomes));
    EXPECT_TRUE(machine_.on(CommittedReceived{"a", 1, 2}).empty());
    EXPECT_EQ(find<AllReady>(machine_.on(ReadyReceived{"a", 2}))->step, 1U);
}

TEST_F(TwoDevices, AMoveBetweenStepsStartsFromWhatAllHave) {
    step(0);
    step(1);
    const auto outcomes =
        machine_.on(ConfigureWanted{plan_of({{"a", 0, 0}, {"b", 1, 3}}), {}, "moved"});
    EXPECT_EQ(configure_of(outcomes, "b")->restore_step, 2U);
    EXPECT_EQ(configure_of(outcomes, "b")->restore,
              (std::vector<LayerTransfer>{{1, 1, "a"}, {2, 3, "b"}}));
    EXPECT_EQ(configure_of(outcomes, "a")->supply, (std::vector<LayerTransfer>{{1, 1, "b"}}));
}

TEST_F(TwoDevices, WhatIsLostForGoodComesFromTheBase) {
    step(0);
    for (const char* device : {"a", "b"}) static_cast<void>(stored(device, 1, 0, 3));
    static_cast<void>(machine_.on(DeviceLost{"a", "x"}));
    static_cast<void>(machine_.on(DeviceLost{"b", "x"}));
    const auto outcomes = machine_.on(ConfigureWanted{plan_of({{"c", 0, 3}}), {}, "both lost"});
    EXPECT_EQ(configure_of(outcomes, "c")->restore_step, 0U);
    EXPECT_FALSE(configure_of(outcomes, "a"));
    EXPECT_TRUE(find<SupplyFromPortal>(outcomes));
}

TEST_F(TwoDevices, ADeviceThatDiesWhileAllRestoreBreaksOffAgain) {
    static_cast<void>(machine_.on(DeviceLost{"b", "x"}));
    static_cast<void>(machine_.on(ConfigureWanted{plan_of({{"a", 0, 1}, {"c", 2, 3}}), {}, ""}));
    static_cast<void>(machine_.on(ReadyReceived{"a", 2}));
    EXPECT_TRUE(find<Broken>(machine_.on(DeviceLost{"c", "x"})));
    EXPECT_TRUE(machine_.on(ReadyReceived{"c", 2}).empty());
    EXPECT_TRUE(machine_.broken());
}

TEST_F(TwoDevices, AFailureNamesDeviceStageStepAndMicroBatch) {
    begin(0);
    const auto outcomes =
        machine_.on(DeviceFailed{"b", 3, 5, ExitCode::kRunFailed, "layer 2: boom"});
    ASSERT_TRUE(find<Broken>(outcomes));
    EXPECT_EQ(find<Broken>(outcomes)->error.message,
              "device b (stage 1), step 4, micro-batch 5: layer 2: boom");
    // The same step fails elsewhere too: no device is to blame.
    static_cast<void>(machine_.on(ConfigureWanted{plan_of({{"a", 0, 3}}), {}, ""}));
    static_cast<void>(machine_.on(ReadyReceived{"a", 2}));
    EXPECT_TRUE(
        find<Fatal>(machine_.on(DeviceFailed{"a", 3, 5, ExitCode::kRunFailed, "layer 2: boom"})));
    EXPECT_TRUE(machine_.on(DeviceLost{"spare", "silence"}).empty());
}

TEST_F(TwoDevices, ABadFileIsNobodysToCure) {
    EXPECT_TRUE(find<Fatal>(machine_.on(DeviceFailed{"a", 0, 0, ExitCode::kBadFile, "no model"})));
}

TEST_F(TwoDevices, ASpareThatKeepsReplicasMayGo) {
    const auto outcomes = machine_.on(ConfigureWanted{
        plan_of({{"a", 0, 1}, {"b", 2, 3}}), {{{"a", "s"}, {"b", "s"}}, 1, ""}, ""});
    EXPECT_TRUE(configure_of(outcomes, "s"));
    for (const char* device : {"a", "b", "s"})
        static_cast<void>(machine_.on(ReadyReceived{device, 2}));
    EXPECT_TRUE(find<ReplicasLost>(machine_.on(DeviceLost{"s", "unplugged"})));
    EXPECT_FALSE(machine_.broken());
}

TEST_F(TwoDevices, FetchedTensorsAreSummed) {
    static_cast<void>(machine_.on(FetchWanted{}));
    EXPECT_TRUE(machine_.on(FetchedReceived{"a", 1, 4}).empty());
    const auto outcomes = machine_.on(FetchedReceived{"b", 1, 6});
    ASSERT_TRUE(find<AllFetched>(outcomes));
    EXPECT_EQ(find<AllFetched>(outcomes)->state_tensors, 10U);
}

}  // namespace
}  // namespace ecopipe
