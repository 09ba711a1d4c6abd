#include "stage_runtime/stage/stage_machine.h"

#include <gtest/gtest.h>

#include "planner/schedule/registry.h"

namespace ecopipe {
namespace {

using namespace stage_event;
using namespace stage_command;

template <class Command>
const Command* find(const StageCommands& commands) {
    for (const StageCommand& command : commands)
        if (const auto* found = std::get_if<Command>(&command)) return found;
    return nullptr;
}

SliceRole middle() {
    SliceRole role;
    role.stage = StageId{1};
    role.first_layer = 2;
    role.last_layer = 3;
    role.values = {{1, std::nullopt, "a"}};
    role.gradients = {{3, std::nullopt, "c"}};
    role.sends_gradient = true;
    return role;
}

TensorAddress tensor(TensorKind kind, std::uint32_t micro_batch, std::uint32_t producer,
                     std::uint64_t step = 0, std::uint32_t generation = 1) {
    TensorAddress address;
    address.generation = generation;
    address.step = step;
    address.kind = kind;
    address.micro_batch = micro_batch;
    address.producer = producer;
    return address;
}

class MiddleStage : public testing::Test {
  protected:
    void SetUp() override {
        EXPECT_FALSE(find<SendReady>(machine_.on(
            Configured{1, "b", {middle()}, {"a", "c"}, 0, {{2, 2, kPortalPeer}}, {}, true})));
        EXPECT_FALSE(find<SendReady>(machine_.on(stage_event::Attached{"a"})));
        const auto loaded = machine_.on(LayerArrived{1, 0, 2, false});
        EXPECT_TRUE(find<LoadLayer>(loaded));
        EXPECT_FALSE(find<SendReady>(loaded));
        EXPECT_FALSE(machine_.state());
        EXPECT_TRUE(find<SendReady>(machine_.on(stage_event::Attached{"c"})));
        EXPECT_EQ(machine_.state(), 0U);
    }
    static Begun begun(std::uint64_t step, std::uint32_t generation = 1) {
        Begin begin;
        begin.micro_batch_samples = {4, 4};
        return {generation, step, begin, kOneFOneB.actions({.micro_batches = 2})};
    }
    StageMachine machine_;
};

TEST_F(MiddleStage, RunsActionsInOrderAsTheirTensorsArrive) {
    EXPECT_TRUE(find<StartStep>(machine_.on(begun(0))));
    // The second micro-batch is here first: it waits for the first.
    EXPECT_FALSE(find<stage_command::Run>(
        machine_.on(TensorArrived{tensor(TensorKind::kActivation, 1, 1)})));
    const auto commands = machine_.on(TensorArrived{tensor(TensorKind::kActivation, 0, 1)});
    ASSERT_TRUE(find<stage_command::Run>(commands));
    EXPECT_EQ(find<stage_command::Run>(commands)->action, (Action{ActionKind::kForward, 0, 0}));
    EXPECT_FALSE(
        find<stage_command::Run>(machine_.on(ActionFinished{})));  // B0 waits for its gradient
    EXPECT_TRUE(
        find<stage_command::Run>(machine_.on(TensorArrived{tensor(TensorKind::kGradient, 0, 3)})));
    EXPECT_TRUE(find<stage_command::Run>(machine_.on(ActionFinished{})));  // F1
    EXPECT_FALSE(find<stage_command::Run>(machine_.on(ActionFinished{})));
    EXPECT_TRUE(
        find<stage_command::Run>(machine_.on(TensorArrived{tensor(TensorKind::kGradient, 1, 3)})));
    EXPECT_TRUE(find<ReportStep>(machine_.on(ActionFinished{})));
    EXPECT_TRUE(machine_.on(StepReported{}).empty());
    EXPECT_TRUE(find<ApplyUpdate>(machine_.on(CommitReceived{1, 0, Commit{0.1, 1}})));
    const auto updated = machine_.on(UpdateFinished{});
    EXPECT_TRUE(find<SendCommitted>(updated));
    EXPECT_FALSE(find<TakeSnapshot>(updated));
    EXPECT_EQ(machine_.state(), 1U);
}

TEST_F(MiddleStage, TheNextBeginWaitsForTheCommit) {
    StageMachine machine;
    static_cast<void>(machine.on(Configured{1, "b", {middle()}, {}, 0, {}, {}, false}));
    Begin begin;
    begin.micro_batch_samples = {1};
    static_cast<void>(machine.on(Begun{1, 0, begin, {}}));
    static_cast<void>(machine.on(StepReported{}));
    EXPECT_FALSE(find<StartStep>(machine.on(Begun{1, 1, begin, {}})));
    static_cast<void>(machine.on(CommitReceived{1, 0, Commit{}}));
    EXPECT_TRUE(find<StartStep>(machine.on(UpdateFinished{})));
}

TEST_F(MiddleStage, OlderGenerationsAndDuplicatesAreDropped) {
    static_cast<void>(machine_.on(begun(0)));
    EXPECT_TRUE(
        find<DropTensor>(machine_.on(TensorArrived{tensor(TensorKind::kActivation, 0, 1, 0, 0)})));
    static_cast<void>(machine_.on(TensorArrived{tensor(TensorKind::kActivation, 1, 1)}));
    EXPECT_TRUE(
        find<DropTensor>(machine_.on(TensorArrived{tensor(TensorKind::kActivation, 1, 1)})));
    EXPECT_TRUE(machine_.on(CommitReceived{0, 0, Commit{}}).empty());
    EXPECT_TRUE(machine_.on(begun(0, 0)).empty());
}

TEST_F(MiddleStage, TensorsOfALaterStepWait) {
    EXPECT_TRUE(machine_.on(TensorArrived{tensor(TensorKind::kActivation, 0, 1, 5)}).empty());
    Begun evaluation = begun(5);
    evaluation.begin.mode = StepMode::kEvaluate;
    EXPECT_TRUE(find<StartStep>(machine_.on(evaluation)));
    machine_ = StageMachine();
    static_cast<void>(machine_.on(Configured{1, "b", {middle()}, {}, 5, {}, {}, false}));
    EXPECT_TRUE(machine_.on(TensorArrived{tensor(TensorKind::kActivation, 0, 1, 5)}).empty());
    EXPECT_TRUE(find<stage_command::Run>(machine_.on(begun(5))));
}

TEST_F(MiddleStage, StepsStartFromTheStateThatTheyBelongTo) {
    EXPECT_TRUE(find<ProtocolError>(machine_.on(begun(5))));
}

TEST_F(MiddleStage, ASnapshotIsTakenAfterTheUpdateThatAsksForIt) {
    StageMachine machine;
    static_cast<void>(machine.on(Configured{1, "b", {middle()}, {}, 0, {}, {}, true}));
    Begin begin;
    begin.micro_batch_samples = {1};
    const auto begun = machine.on(Begun{1, 0, begin, {}});
    ASSERT_TRUE(find<DropSnapshots>(begun));
    EXPECT_EQ(find<DropSnapshots>(begun)->before, 0U);
    static_cast<void>(machine.on(StepReported{}));
    static_cast<void>(machine.on(CommitReceived{1, 0, Commit{0.1, 1, true}}));
    const auto updated = machine.on(UpdateFinished{});
    ASSERT_TRUE(find<TakeSnapshot>(updated));
    EXPECT_EQ(find<TakeSnapshot>(updated)->step, 1U);
}

TEST_F(MiddleStage, AnotherConfigurationGivesUpTheStepAndRestores) {
    static_cast<void>(machine_.on(begun(0)));
    static_cast<void>(machine_.on(TensorArrived{tensor(TensorKind::kActivation, 0, 1)}));
    SliceRole wider = middle();
    wider.last_layer = 4;
    // Layers 2 and 3 are kept here, layer 4 comes from c; layer 3 also goes to a, once a is there.
    const auto commands = machine_.on(
        Configured{2, "b", {wider}, {"a"}, 0, {{2, 3, "b"}, {4, 4, "c"}}, {{3, 3, "a"}}, true});
    EXPECT_TRUE(find<LoadLayer>(commands));
    EXPECT_FALSE(find<SupplyLayers>(commands));
    EXPECT_TRUE(find<SupplyLayers>(machine_.on(stage_event::Attached{"a"})));
    EXPECT_TRUE(machine_.on(LayerArrived{1, 0, 4, false}).empty());  // of the old generation
    EXPECT_FALSE(find<SendReady>(machine_.on(LayerArrived{2, 3, 4, false})));  // another step
    EXPECT_TRUE(find<SendReady>(machine_.on(LayerArrived{2, 0, 4, false})));
    EXPECT_TRUE(machine_.on(begun(0)).empty());  // an old Begin
    EXPECT_TRUE(find<StartStep>(machine_.on(begun(0, 2))));
}

TEST(StageMachine, ADeviceWithoutSlicesKeepsReplicas) {
    StageMachine machine;
    EXPECT_TRUE(find<SendReady>(machine.on(Configured{3, "s", {}, {}, 7, {}, {}, true})));
    EXPECT_FALSE(machine.state());
    const auto stored = machine.on(LayerArrived{3, 8, 2, true});
    ASSERT_TRUE(find<SendStored>(stored));
    EXPECT_EQ(find<SendStored>(stored)->step, 8U);
    Begin begin;
    begin.micro_batch_samples = {1};
    begin.recovery_point = 8;
    const auto dropped = machine.on(Begun{3, 9, begin, {}});
    ASSERT_TRUE(find<DropSnapshots>(dropped));
    EXPECT_EQ(find<DropSnapshots>(dropped)->before, 8U);
}

TEST_F(MiddleStage, SeveralOutputsOfOneLayerAreAllAwaited) {
    static_cast<void>(machine_.on(begun(0)));
    TensorAddress first = tensor(TensorKind::kActivation, 0, 1);
    first.outputs = 2;
    TensorAddress second = first;
    second.output = 1;
    EXPECT_FALSE(find<stage_command::Run>(machine_.on(TensorArrived{second})));
    const auto commands = machine_.on(TensorArrived{first});
    ASSERT_TRUE(find<stage_command::Run>(commands));
    EXPECT_EQ(find<stage_command::Run>(commands)->tensors,
              (std::vector<TensorAddress>{first, second}));
}

TEST_F(MiddleStage, ACommitOutOfOrderIsAnError) {
    EXPECT_TRUE(find<ProtocolError>(machine_.on(CommitReceived{1, 0, Commit{}})));
    static_cast<void>(machine_.on(begun(0)));
    EXPECT_TRUE(find<ProtocolError>(machine_.on(FetchReceived{1, {}})));
    EXPECT_TRUE(find<ProtocolError>(machine_.on(begun(1))));
}

TEST(SliceRoles, FollowThePlanAndTheFirstTrainableLayer) {
    Plan plan;
    for (const int first : {0, 2, 4, 6}) {
        StagePlan stage;
        stage.device = first % 4 == 0 ? "a" : "b";
        stage.first_layer = first;
        stage.last_layer = first + 1;
        plan.stages.push_back(stage);
    }
    const ValueGraph flow = ValueGraph::chain({false, false, true, true, true, true, true, true});
    const auto a = slice_roles(PlanIndex(plan, flow), flow, "a");
    ASSERT_EQ(a.size(), 2U);
    ASSERT_EQ(a[0].values.size(), 1U);
    EXPECT_EQ(a[0].values[0].from, kPortalPeer);
    EXPECT_TRUE(a[0].gradients.empty());  // layers 0 and 1 are frozen
    ASSERT_EQ(a[1].values.size(), 1U);
    EXPECT_EQ(a[1].values[0].from, "b");
    EXPECT_EQ(a[1].values[0].producer, 3);
    EXPECT_TRUE(a[1].sends_gradient);
    const auto b = slice_roles(PlanIndex(plan, flow), flow, "b");
    EXPECT_FALSE(b[0].sends_gradient);
    EXPECT_TRUE(b[1].last);
    EXPECT_EQ(PlanIndex(plan).neighbours_of("a"), std::vector<std::string>{"b"});
}

}  // namespace
}  // namespace ecopipe
