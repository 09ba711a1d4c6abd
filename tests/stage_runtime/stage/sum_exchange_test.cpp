// What devices that hold a stage together send one another, in whatever order it arrives. Gradients
// are texts that say how they were added up.
#include "stage_runtime/stage/sum_exchange.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "core/random.h"

namespace ecopipe {
namespace {

HostTensor text_tensor(const std::string& text) {
    HostTensor tensor = HostTensor::allocate(DType::kU8, {static_cast<std::int64_t>(text.size())});
    std::memcpy(tensor.data(), text.data(), text.size());
    return tensor;
}

std::string text_in(const HostTensor& tensor) {
    return {reinterpret_cast<const char*>(tensor.data()), tensor.bytes()};
}

class TextCompute : public StageCompute {
  public:
    TextCompute(SumTree tree, std::map<int, std::size_t> layers)
        : tree_(tree), layers_(std::move(layers)) {}

    std::map<int, std::string> totals;
    std::map<std::uint32_t, std::string> found;  // statistics, by micro-batch

    void start() {
        sums_.clear();
        totals.clear();
        found.clear();
    }
    void forward(std::uint32_t micro_batch) {
        found[micro_batch] = fmt::format("s{}", micro_batch);
    }
    void count(int layer, std::uint32_t micro_batch) {
        auto& sum = at(layer, tree_.leaf(tree_.block_of(micro_batch)));
        sum = sum ? fmt::format("{} {}", *sum, micro_batch) : std::to_string(micro_batch);
    }

    StageSums sums() const override { return {layers_, true}; }
    LayerGradient take_sum(int layer, int node) override {
        const auto sum = fold(layer, node);
        EXPECT_TRUE(sum) << "nothing at node " << node;
        return {text_tensor(sum.value_or("")), ""};
    }
    Result<void> add_sum(int layer, int node, const LayerGradient& sum) override {
        EXPECT_FALSE(at(layer, node)) << "node " << node << " again";
        at(layer, node) = text_in(sum.values);
        return {};
    }
    LayerGradient total(int layer) override {
        totals[layer] = fold(layer, 0).value_or("");
        return {text_tensor(totals[layer]), ""};
    }
    Result<void> set_total(int layer, const LayerGradient& total) override {
        totals[layer] = text_in(total.values);
        return {};
    }
    HostTensor statistics(MicroBatchId micro_batch) const override {
        return text_tensor(found.at(micro_batch.value));
    }
    Result<void> add_statistics(MicroBatchId micro_batch, const HostTensor& tensor) override {
        found[micro_batch.value] = text_in(tensor);
        return {};
    }

    Result<ValueGraph> prepare(const Configure&, const Plan&, std::span<const StageId>) override {
        return ValueGraph();
    }
    void clear() override {}
    void discard() override {}
    std::map<int, TensorMap> layer_states() const override { return {}; }
    Result<void> load(int, const TensorMap&) override { return {}; }
    void recompute(const Segments&) override {}
    void begin(std::uint64_t, const Begin&) override {}
    Result<ComputeResult> run(ComputeJob) override { return ComputeResult(); }
    HostTensor tied_gradient(SliceId, const TiedUse&) override { return {}; }
    void add_tied_gradient(SliceId, const TiedUse&, const HostTensor&) override {}
    HostTensor tied_weight(SliceId, const TiedUse&) override { return {}; }
    Result<void> set_tied_weight(SliceId, const TiedUse&, const HostTensor&) override { return {}; }
    StepTotals finish_step() override { return {}; }
    void commit(const Commit&) override {}
    TensorMap state(SliceId, bool) const override { return {}; }
    std::size_t live_bytes() const override { return 0; }
    MemoryByUse take_peak_memory() override { return {}; }

  private:
    using Sums = std::vector<std::optional<std::string>>;
    std::optional<std::string>& at(int layer, int node) {
        Sums& sums = sums_[layer];
        sums.resize(static_cast<std::size_t>(tree_.nodes()));
        return sums[static_cast<std::size_t>(node)];
    }
    std::optional<std::string> fold(int layer, int node) {
        at(layer, node);
        return fold_sum(tree_, sums_[layer], node, [](const std::string& a, const std::string& b) {
            return fmt::format("({}+{})", a, b);
        });
    }

    SumTree tree_;
    std::map<int, std::size_t> layers_;
    std::map<int, Sums> sums_;
};

struct Sent {
    std::string from;
    std::string to;
    TensorAddress address;
    HostTensor tensor;
};

class Wire : public TensorChannels {
  public:
    Wire(std::string device, std::vector<Sent>& sent) : device_(std::move(device)), sent_(sent) {}
    void set_run(std::uint64_t, std::uint64_t) override {}
    Result<void> dial(const std::string&, const Endpoint&, std::uint64_t) override { return {}; }
    bool connected(const std::string&) override { return true; }
    void keep_only(const std::vector<std::string>&, std::uint32_t) override {}
    void send(const std::string& peer, TensorAddress address, EncodedTensor tensor) override {
        sent_.push_back({device_, peer, std::move(address), decode_tensor(tensor)});
    }
    bool has_room() override { return true; }
    void consumed(const std::string&, std::size_t) override {}
    std::uint64_t sent_bytes() override { return 0; }
    void sizes_change() override {}

  private:
    std::string device_;
    std::vector<Sent>& sent_;
};

struct Device {
    Device(const std::string& name, const PlanIndex& plan, const ValueGraph& flow,
           const std::map<int, std::size_t>& layers, std::vector<Sent>& sent)
        : wire(name, sent),
          compute(plan.sum_tree(), layers),
          router(name, wire),
          exchange(name, compute, router) {
        router.set_plan(&plan, &flow, {});
        exchange.set_plan(&plan, TensorCodec::kNone);
    }
    Wire wire;
    TextCompute compute;
    TensorRouter router;
    SumExchange exchange;
};

// Layers 0 to 2 on one stage, of which 1 has nothing to train.
class Together {
  public:
    explicit Together(const std::vector<std::vector<int>>& blocks) {
        Plan plan;
        for (const auto& own : blocks) plan.sum_blocks += static_cast<int>(own.size());
        --plan.sum_blocks;
        StagePlan stage;
        stage.last_layer = 2;
        for (std::size_t d = 0; d < blocks.size(); ++d)
            stage.twins.push_back({fmt::format("d{}", d), blocks[d], 1, {}, {}});
        stage.device = stage.twins.front().device;
        stage.blocks = stage.twins.front().blocks;
        stage.twins.erase(stage.twins.begin());
        plan.stages = {stage};
        index_ = PlanIndex(plan);
        flow_ = ValueGraph::chain({true, false, true});
        for (const std::string& name : index_.devices())
            devices_.emplace(name, std::make_unique<Device>(name, index_, flow_, layers_, sent_));
    }

    // One step, everything in an order of chance that a device's own actions allow. What each
    // device has of each layer in the end, and of the statistics.
    void step(std::uint64_t number, std::uint32_t micro_batches, Rng& rng) {
        sent_.clear();
        std::map<std::string, std::uint32_t> next;
        for (auto& [name, device] : devices_) {
            device->compute.start();
            device->exchange.begin({1, number}, micro_batches);
            next[name] = 0;
        }
        for (;;) {
            std::vector<std::string> busy;
            for (auto& [name, m] : next) {
                while (m < micro_batches && index_.owner_of(StageId{0}, m) != name) ++m;
                if (m < micro_batches) busy.push_back(name);
            }
            const std::size_t choices = busy.size() + sent_.size();
            if (choices == 0) break;
            const std::size_t choice = rng.below(choices);
            if (choice < busy.size()) {
                run(busy[choice], next[busy[choice]]++);
                continue;
            }
            const auto which = sent_.begin() + static_cast<std::ptrdiff_t>(choice - busy.size());
            const Sent arrived = std::move(*which);
            sent_.erase(which);
            Device& to = *devices_.at(arrived.to);
            bytes_ += arrived.tensor.bytes();
            const auto taken = to.exchange.take(arrived.address, arrived.tensor);
            EXPECT_TRUE(taken) << taken.error().message;
            EXPECT_TRUE(to.exchange.take(arrived.address, arrived.tensor));  // and is dropped
        }
        for (auto& [name, device] : devices_) {
            EXPECT_TRUE(device->exchange.complete())
                << name << " waits for " << device->exchange.waits_for();
            EXPECT_EQ(device->exchange.waits_for(), "");
        }
    }

    [[nodiscard]] const TextCompute& compute(const std::string& device) const {
        return devices_.at(device)->compute;
    }
    [[nodiscard]] const PlanIndex& plan() const { return index_; }
    [[nodiscard]] bool complete(const std::string& device) const {
        return devices_.at(device)->exchange.complete();
    }

  private:
    void run(const std::string& name, std::uint32_t m) {
        Device& device = *devices_.at(name);
        const auto micro_batch = static_cast<int>(m);
        device.compute.forward(m);
        device.exchange.action_done({ActionKind::kForward, micro_batch});
        for (const int layer : {2, 0}) {
            device.compute.count(layer, m);
            device.exchange.layer_done(m, layer);
        }
        device.exchange.action_done({ActionKind::kBackward, micro_batch});
    }

    std::map<int, std::size_t> layers_{{0, 40}, {2, 8}};
    PlanIndex index_;
    ValueGraph flow_;
    std::vector<Sent> sent_;
    std::size_t bytes_ = 0;
    std::map<std::string, std::unique_ptr<Device>> devices_;
};

TEST(SumExchange, WhateverArrivesFirstAllHaveTheSumOfOne) {
    Rng rng(1);
    for (const std::vector<std::vector<int>>& blocks :
         {std::vector<std::vector<int>>{{0, 2}, {1, 3}},
          {{0, 1, 2}, {3}},
          {{3}, {0, 1, 2}},
          {{0}, {1}, {2}, {3}},
          {{1}, {0, 2, 3, 4, 7}, {5, 6}}}) {
        Together together(blocks);
        for (std::uint64_t order = 0; order < 100; ++order) {
            const auto micro_batches = static_cast<std::uint32_t>(1 + rng.below(12));
            together.step(order, micro_batches, rng);
            TextCompute alone(together.plan().sum_tree(), {{0, 1}});
            for (std::uint32_t m = 0; m < micro_batches; ++m) alone.count(0, m);
            static_cast<void>(alone.total(0));
            for (const std::string& device : together.plan().devices()) {
                const TextCompute& compute = together.compute(device);
                EXPECT_EQ(compute.totals.at(0), alone.totals.at(0)) << device;
                EXPECT_EQ(compute.totals.at(2), alone.totals.at(0)) << device;
                EXPECT_EQ(compute.totals.size(), 2U);
                EXPECT_EQ(compute.found.size(), micro_batches);
                for (const auto& [m, statistic] : compute.found)
                    EXPECT_EQ(statistic, fmt::format("s{}", m));
            }
        }
    }
}

TEST(SumExchange, ADeviceAloneHasNothingToExchange) {
    Plan plan;
    plan.sum_blocks = 2;
    plan.stages.emplace_back();
    plan.stages[0].device = "d0";
    const PlanIndex index(plan);
    const ValueGraph flow = ValueGraph::chain({true});
    std::vector<Sent> sent;
    Device device("d0", index, flow, {{0, 8}}, sent);
    EXPECT_FALSE(device.exchange.active());
}

}  // namespace
}  // namespace ecopipe
