// A stage's decisions, event by event, without sockets, torch or clocks.
#include "stage_runtime/stage/stage_driver.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "planner/schedule/plan_file.h"
#include "tests/orchestrator/plan_of.h"
#include "transport/wire/codec.h"

namespace ecopipe {
namespace {

constexpr std::uint64_t kInstance = 7;

HostTensor number(std::uint64_t value) {
    HostTensor tensor = HostTensor::allocate(DType::kI64, {1});
    tensor.as<std::uint64_t>()[0] = value;
    return tensor;
}

class Uplink : public StageUplink {
  public:
    std::vector<StageMessage> sent;
    void send(const FrameHeader&, StageMessage message) override {
        sent.push_back(std::move(message));
    }
    template <class Message>
    [[nodiscard]] std::size_t count() const {
        return static_cast<std::size_t>(std::count_if(
            sent.begin(), sent.end(),
            [](const StageMessage& message) { return std::holds_alternative<Message>(message); }));
    }
};

class Channels : public TensorChannels {
  public:
    bool room = true;
    int size_changes = 0;
    std::vector<std::pair<std::string, TensorAddress>> sent;

    void set_run(std::uint64_t, std::uint64_t) override {}
    Result<void> dial(const std::string&, const Endpoint&, std::uint64_t) override { return {}; }
    bool connected(const std::string&) override { return true; }
    void keep_only(const std::vector<std::string>&, std::uint32_t) override {}
    void send(const std::string& peer, TensorAddress address, EncodedTensor) override {
        sent.emplace_back(peer, std::move(address));
    }
    bool has_room() override { return room; }
    void consumed(const std::string&, std::size_t) override {}
    std::uint64_t sent_bytes() override { return 0; }
    void sizes_change() override { ++size_changes; }
};

// Layers of two tensors each; a forward gives back its input.
class Compute : public StageCompute {
  public:
    std::map<int, std::vector<std::uint64_t>> loaded;
    std::vector<Segments> recomputed;  // as it was told

    Result<ValueGraph> prepare(const Configure&, const Plan&, std::span<const StageId>) override {
        return ValueGraph::chain({true, true});
    }
    void clear() override {}
    void discard() override {}
    std::map<int, TensorMap> layer_states() const override { return {}; }
    Result<void> load(int layer, const TensorMap& state) override {
        loaded[layer].clear();
        for (const NamedTensor& entry : state)
            loaded[layer].push_back(entry.tensor.as<std::uint64_t>()[0]);
        return {};
    }
    void recompute(const Segments& segments) override { recomputed.push_back(segments); }
    void begin(std::uint64_t, const Begin&) override {}
    Result<ComputeResult> run(ComputeJob job) override {
        ComputeResult result;
        result.tensors.push_back({job.tensors.at(0)});
        return result;
    }
    HostTensor tied_gradient(SliceId, const TiedUse&) override { return {}; }
    void add_tied_gradient(SliceId, const TiedUse&, const HostTensor&) override {}
    HostTensor tied_weight(SliceId, const TiedUse&) override { return {}; }
    Result<void> set_tied_weight(SliceId, const TiedUse&, const HostTensor&) override { return {}; }
    StageSums sums() const override { return {}; }
    LayerGradient take_sum(int, int) override { return {}; }
    Result<void> add_sum(int, int, const LayerGradient&) override { return {}; }
    LayerGradient total(int) override { return {}; }
    Result<void> set_total(int, const LayerGradient&) override { return {}; }
    HostTensor statistics(MicroBatchId) const override { return {}; }
    Result<void> add_statistics(MicroBatchId, const HostTensor&) override { return {}; }
    StepTotals finish_step() override { return {}; }
    void commit(const Commit&) override {}
    TensorMap state(SliceId, bool) const override { return {}; }
    std::size_t live_bytes() const override { return 0; }
    MemoryByUse take_peak_memory() override { return {}; }
};

// Device a holds layer 0, the first of two.
class StageDriverTest : public testing::Test {
  protected:
    StageDriverTest()
        : driver_({"a", "the portal", 1, 600}, {uplink_,
                                                channels_,
                                                compute_,
                                                [this] { return now_; },
                                                {},
                                                [this] { return budget_; }}) {
        driver_.join(kInstance);
        tell(Welcome{100, 3000}, {});
        driver_.on(stage_input::PeerAttached{kPortalPeer, kInstance});
        driver_.on(stage_input::PeerAttached{"b", kInstance});
    }

    template <class Message>
    void tell(const Message& message, FrameHeader header) {
        header.type = static_cast<std::uint16_t>(Message::kType);
        const std::string body = encode(message);
        const auto bytes = std::as_bytes(std::span(body));
        driver_.on(stage_input::Message{header, {bytes.begin(), bytes.end()}});
    }
    void configure(std::uint32_t generation, std::uint32_t course) {
        Plan plan = plan_of({{"a", 0, 0}, {"b", 1, 1}});
        plan.model = "toy";
        plan.batch = plan.micro_batches = 1;
        plan.schedule = "1f1b";
        if (!frontier_.empty()) plan.frontiers["a"] = frontier_;
        Configure work;
        work.plan_json = plan_text(plan);
        work.device = "a";
        work.model = "lenet5";
        work.num_classes = 2;
        work.input_shape = {1};
        work.peers = {{"b", "tcp://127.0.0.1:1", false, kInstance}};
        work.restore = {{0, 0, kPortalPeer}};
        work.course = course;
        FrameHeader header;
        header.generation = generation_ = generation;
        tell(work, header);
    }
    void state_arrives(std::uint16_t which, std::uint64_t value) {
        TensorAddress address;
        address.generation = generation_;
        address.kind = TensorKind::kState;
        address.output = which;
        address.outputs = 2;
        address.name = which == 0 ? "weight" : "bias";
        driver_.on(Delivery{kPortalPeer, address, number(value)});
    }
    // A step of one micro-batch begins in another configuration and course, its state loaded.
    void begin_anew(std::uint32_t generation, StepMode mode) {
        configure(generation, generation);
        state_arrives(0, 1);
        state_arrives(1, 2);
        FrameHeader header;
        header.generation = generation;
        Begin begin;
        begin.mode = mode;
        begin.micro_batch_samples = {1};
        tell(begin, header);
    }
    // Its first micro-batch is computed, and there is no room for what comes of it.
    void evaluate_without_room() {
        configure(1, 1);
        state_arrives(0, 1);
        state_arrives(1, 2);
        ASSERT_EQ(uplink_.count<Ready>(), 1U);
        FrameHeader header;
        header.generation = 1;
        Begin begin;
        begin.mode = StepMode::kEvaluate;
        begin.micro_batch_samples = {1, 1};
        tell(begin, header);
        TensorAddress input;
        input.generation = 1;
        input.kind = TensorKind::kEvalInput;
        driver_.on(Delivery{kPortalPeer, input, number(5)});
        channels_.room = false;
        ASSERT_TRUE(driver_.next_action());
        driver_.work();
        ASSERT_EQ(outputs_sent(), 0U);
        ASSERT_FALSE(driver_.next_action());
    }
    [[nodiscard]] std::size_t outputs_sent() const {
        return static_cast<std::size_t>(std::count_if(
            channels_.sent.begin(), channels_.sent.end(),
            [](const auto& sent) { return sent.second.kind == TensorKind::kEvalActivation; }));
    }

    Instant now_{std::chrono::seconds(1)};
    std::optional<MemoryBudget> budget_;
    std::vector<MemoryPoint> frontier_;
    std::uint32_t generation_ = 0;
    Uplink uplink_;
    Channels channels_;
    Compute compute_;
    StageDriver driver_;
};

TEST_F(StageDriverTest, WhatCameOfAStateIsNotAskedForAgainInTheSameCourse) {
    configure(1, 1);
    state_arrives(0, 10);
    state_arrives(1, 11);
    ASSERT_EQ(uplink_.count<Ready>(), 1U);
    configure(2, 1);
    EXPECT_EQ(uplink_.count<Ready>(), 2U);
    EXPECT_EQ(compute_.loaded[0], (std::vector<std::uint64_t>{10, 11}));
}

TEST_F(StageDriverTest, AStateOfAnEarlierCourseIsForgotten) {
    configure(1, 1);
    state_arrives(0, 10);
    state_arrives(1, 11);
    configure(2, 2);
    EXPECT_EQ(uplink_.count<Ready>(), 1U) << "ready with the state of the course before";
    state_arrives(0, 20);
    state_arrives(1, 21);
    EXPECT_EQ(uplink_.count<Ready>(), 2U);
    EXPECT_EQ(compute_.loaded[0], (std::vector<std::uint64_t>{20, 21}));
}

TEST_F(StageDriverTest, SoIsAHalfArrivedOne) {
    configure(1, 1);
    state_arrives(0, 10);
    configure(2, 2);
    state_arrives(1, 21);
    EXPECT_EQ(uplink_.count<Ready>(), 0U) << "half of it is of the course before";
    state_arrives(0, 20);
    EXPECT_EQ(uplink_.count<Ready>(), 1U);
    EXPECT_EQ(compute_.loaded[0], (std::vector<std::uint64_t>{20, 21}));
}

TEST_F(StageDriverTest, ATakenForLostStageKeepsNothingOfItsLifeBefore) {
    configure(1, 1);
    state_arrives(0, 10);
    tell(Refuse{4, "taken for lost"}, {});
    ASSERT_TRUE(driver_.ended());
    EXPECT_TRUE(driver_.ended()->taken_for_lost);
    driver_.join(kInstance + 1);
    EXPECT_FALSE(driver_.ended());
    EXPECT_FALSE(driver_.welcomed());
    tell(Welcome{100, 3000}, {});
    driver_.on(stage_input::PeerAttached{kPortalPeer, kInstance + 1});
    driver_.on(stage_input::PeerAttached{"b", kInstance});
    configure(1, 1);
    state_arrives(1, 21);
    EXPECT_EQ(uplink_.count<Ready>(), 0U);
    state_arrives(0, 20);
    EXPECT_EQ(uplink_.count<Ready>(), 1U);
}

// What memory its tensors may take is asked before each training step, and followed.
TEST_F(StageDriverTest, FollowsItsBudgetInTraining) {
    frontier_ = {{1000, 0, {}}, {100, 1, {{0, 0}}}};
    budget_ = MemoryBudget{500, true, false};
    begin_anew(1, StepMode::kEvaluate);
    EXPECT_TRUE(compute_.recomputed.empty());
    begin_anew(2, StepMode::kTrain);
    EXPECT_EQ(compute_.recomputed, (std::vector<Segments>{{{0, 0}}}));
    EXPECT_EQ(uplink_.count<MemoryMoved>(), 1U);
}

TEST_F(StageDriverTest, WithoutAFrontierNobodyAsksForABudget) {
    budget_ = MemoryBudget{0, true, false};
    begin_anew(1, StepMode::kTrain);
    EXPECT_TRUE(compute_.recomputed.empty());
    EXPECT_EQ(uplink_.count<MemoryMoved>(), 0U);
}

// What an evaluation receives has other sizes than what a step does, and neither is kept for the
// other.
TEST_F(StageDriverTest, AnEvaluationsSizesAreItsOwn) {
    evaluate_without_room();
    EXPECT_EQ(channels_.size_changes, 1);
}

TEST_F(StageDriverTest, RoomEndsTheWaitForIt) {
    evaluate_without_room();
    driver_.on(stage_input::RoomMade{});
    EXPECT_EQ(outputs_sent(), 0U) << "sent without room";
    channels_.room = true;
    driver_.on(stage_input::RoomMade{});
    EXPECT_EQ(outputs_sent(), 1U);
}

TEST_F(StageDriverTest, ASignalEndsTheWaitForRoom) {
    evaluate_without_room();
    driver_.leave("SIGTERM");
    EXPECT_EQ(uplink_.count<Leave>(), 1U);
    // Nobody takes the layers: it leaves all the same.
    for (int tick = 0; tick < 40 * 20 && !driver_.ended(); ++tick) {
        now_ += kStageTick;
        driver_.tick(0);
        driver_.leave("SIGTERM");
    }
    ASSERT_TRUE(driver_.ended());
    EXPECT_EQ(uplink_.count<Leave>(), 1U);
}

TEST_F(StageDriverTest, ThePortalsLossEndsTheWaitForRoom) {
    evaluate_without_room();
    driver_.on(stage_input::PortalLost{{ExitCode::kUnreachable, "the portal is gone"}});
    ASSERT_TRUE(driver_.ended());
    EXPECT_EQ(driver_.ended()->result.error().message, "the portal is gone");
}

TEST_F(StageDriverTest, ANewConfigurationEndsTheWaitForRoom) {
    evaluate_without_room();
    configure(2, 1);
    state_arrives(0, 1);
    state_arrives(1, 2);
    EXPECT_EQ(uplink_.count<Ready>(), 2U);
    channels_.room = true;
    driver_.on(stage_input::RoomMade{});
    EXPECT_EQ(outputs_sent(), 0U) << "of a configuration that is no longer in force";
}

}  // namespace
}  // namespace ecopipe
