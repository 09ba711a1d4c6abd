#include "orchestrator/session_machine.h"

#include <gtest/gtest.h>

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

class TwoDevices : public testing::Test {
  protected:
    void SetUp() override {
        static_cast<void>(machine_.on(ConfigureSent{1, {"a", "b"}}));
        EXPECT_FALSE(find<AllReady>(machine_.on(ReadyReceived{"a", 1})));
        EXPECT_TRUE(find<AllReady>(machine_.on(ReadyReceived{"b", 1})));
        static_cast<void>(machine_.on(BeginSent{0, false}));
    }
    SessionMachine machine_;
};

TEST_F(TwoDevices, NothingIsDoneBeforeAllSaySo) {
    EXPECT_TRUE(machine_.on(DoneReceived{"a", 1, 0, {}}).empty());
    EXPECT_TRUE(machine_.on(DoneReceived{"a", 1, 0, {}}).empty());  // twice is once
    EXPECT_TRUE(machine_.on(DoneReceived{"b", 0, 0, {}}).empty());  // an older generation
    EXPECT_TRUE(machine_.on(DoneReceived{"b", 1, 7, {}}).empty());  // another step
    const auto outcomes = machine_.on(DoneReceived{"b", 1, 0, {}});
    ASSERT_TRUE(find<AllDone>(outcomes));
    EXPECT_EQ(find<AllDone>(outcomes)->done.size(), 2U);
}

TEST_F(TwoDevices, CommitAndTheNextBeginOverlap) {
    static_cast<void>(machine_.on(DoneReceived{"a", 1, 0, {}}));
    static_cast<void>(machine_.on(DoneReceived{"b", 1, 0, {}}));
    static_cast<void>(machine_.on(CommitSent{0}));
    static_cast<void>(machine_.on(BeginSent{1, false}));
    EXPECT_FALSE(machine_.all_committed());
    static_cast<void>(machine_.on(CommittedReceived{"a", 1, 0}));
    static_cast<void>(machine_.on(DoneReceived{"a", 1, 1, {}}));
    EXPECT_EQ(machine_.waiting_for(), "b to commit step 0");
    EXPECT_TRUE(find<AllCommitted>(machine_.on(CommittedReceived{"b", 1, 0})));
    EXPECT_TRUE(machine_.all_committed());
    EXPECT_TRUE(find<AllDone>(machine_.on(DoneReceived{"b", 1, 1, {}})));
}

TEST_F(TwoDevices, AFailureNamesDeviceStepAndMicroBatch) {
    const auto outcomes =
        machine_.on(DeviceFailed{"b", 3, 5, ExitCode::kRunFailed, "layer 2: boom"});
    ASSERT_TRUE(find<Failure>(outcomes));
    EXPECT_EQ(find<Failure>(outcomes)->error.message,
              "device b, step 3, micro-batch 5: layer 2: boom");
    EXPECT_TRUE(find<Failure>(machine_.on(DeviceLost{"a", "silence"})));
    EXPECT_TRUE(machine_.on(DeviceLost{"spare", "silence"}).empty());
}

TEST_F(TwoDevices, FetchedTensorsAreSummed) {
    static_cast<void>(machine_.on(FetchSent{}));
    EXPECT_TRUE(machine_.on(FetchedReceived{"a", 4}).empty());
    const auto outcomes = machine_.on(FetchedReceived{"b", 6});
    ASSERT_TRUE(find<AllFetched>(outcomes));
    EXPECT_EQ(find<AllFetched>(outcomes)->state_tensors, 10U);
}

}  // namespace
}  // namespace ecopipe
