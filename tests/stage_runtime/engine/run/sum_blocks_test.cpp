// Several executors hold one model, each with sum blocks of its own: the bytes must be those of
// one that has them all.
#include "domain/sum_blocks.h"

#include <gtest/gtest.h>

#include <memory>

#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/executor.h"
#include "tests/stage_runtime/engine/run/model_steps.h"

namespace ecopipe::test {
namespace {

class SumBlocks : public testing::Test {
  protected:
    static void SetUpTestSuite() { configure_torch(1); }
};

using Owners = std::vector<std::size_t>;  // of each block

// Data parallelism by hand, the first holder every layer's home.
class Holders {
  public:
    Holders(const ModelSpec& spec, ExecutorOptions options, Owners owners)
        : tree_(static_cast<int>(owners.size())), owners_(std::move(owners)) {
        options.sum_blocks = tree_.blocks();
        options.range = {0, static_cast<int>(inspect_model(spec)->layers.size()) - 1};
        options.recomputed = within(options.recomputed, options.range);
        const auto weights = initial_weights(spec, 3);
        for (std::size_t h = 0; h <= *std::max_element(owners_.begin(), owners_.end()); ++h) {
            holders_.push_back(std::move(*Executor::create(spec, options)));
            for (const NamedTensor& weight : *weights)
                EXPECT_TRUE(holders_.back()->load_state(weight.name, weight.tensor));
        }
    }

    void step(const ModelSpec& spec, std::uint64_t step, const std::vector<std::int64_t>& sizes,
              bool split = false) {
        for (auto& holder : holders_) holder->begin_step(step, 8);
        for (std::uint32_t m = 0; m < sizes.size(); ++m) {
            const Batch batch = random_batch(spec, sizes[m], step * 10 + m);
            Executor& holder = owner(m);
            ASSERT_TRUE(holder.forward(m, {batch.inputs}, &batch.labels));
            if (split) {
                ASSERT_TRUE(holder.input_gradient(m, {}));
            } else {
                ASSERT_TRUE(holder.backward(m, {}));
            }
        }
        for (std::uint32_t m = 0; split && m < sizes.size(); ++m)
            ASSERT_TRUE(owner(m).weight_gradient(m));
        exchange(static_cast<std::uint32_t>(sizes.size()));
        std::vector<double> norms;
        for (auto& holder : holders_) {
            const StepTotals totals = holder->finish_step();
            if (norms.empty()) norms = totals.squared_gradient_norms;
            EXPECT_EQ(norms, totals.squared_gradient_norms);
            holder->commit(0.005, 0.5);
        }
    }

    // The state that all have.
    TensorMap state() const {
        TensorMap first = holders_.front()->state(true);
        for (const auto& holder : holders_) EXPECT_TRUE(same_bytes(first, holder->state(true)));
        return first;
    }

  private:
    Executor& owner(std::uint32_t m) {
        return *holders_[owners_[static_cast<std::size_t>(tree_.block_of(m))]];
    }
    void exchange(std::uint32_t micro_batches) {
        Executor& home = *holders_.front();
        for (const auto& [layer, bytes] : home.gradient_bytes()) {
            for (std::size_t h = 1; h < holders_.size(); ++h) {
                std::vector<bool> owned;
                for (const std::size_t owner : owners_) owned.push_back(owner == h);
                for (const int node : tree_.subtrees(owned)) {
                    // Blocks without micro-batches are nobody's sum.
                    if (tree_.below(node).first >= static_cast<int>(micro_batches)) continue;
                    ASSERT_TRUE(home.add_sum(layer, node, holders_[h]->take_sum(layer, node)));
                }
            }
            for (std::size_t h = 1; h < holders_.size(); ++h)
                ASSERT_TRUE(holders_[h]->set_total(layer, home.total(layer)));
        }
        if (home.statistics_bytes() == 0) return;
        for (std::uint32_t m = 0; m < micro_batches; ++m)
            for (auto& holder : holders_) {
                if (holder.get() == &owner(m)) continue;
                ASSERT_TRUE(holder->add_statistics(m, owner(m).statistics(m).clone()));
            }
    }

    SumTree tree_;
    Owners owners_;
    std::vector<std::unique_ptr<Executor>> holders_;
};

TensorMap train(const ModelSpec& spec, const ExecutorOptions& options, const Owners& owners,
                bool split = false) {
    Holders holders(spec, options, owners);
    // Whole batches, and ragged ones with fewer micro-batches than blocks, or not as many in each.
    holders.step(spec, 0, {4, 4, 4, 4}, split);
    holders.step(spec, 1, {5, 4, 4}, split);
    holders.step(spec, 2, {4, 4, 4, 4, 4, 4}, split);
    holders.step(spec, 3, {5}, split);
    return holders.state();
}

TEST_F(SumBlocks, HowManyHoldThemChangesNoByte) {
    const ModelSpec spec = zoo("mobilenet_v2", {3, 32, 32});
    ExecutorOptions options;
    options.seed = 5;
    options.optimizer = {"sgd", 0.9, 1e-3};
    const TensorMap one = train(spec, options, Owners(4, 0));
    for (const Owners& owners : {Owners{0, 1, 0, 1}, Owners{0, 0, 1, 1}, Owners{0, 1, 1, 1},
                                 Owners{1, 0, 0, 0}, Owners{0, 1, 2, 1}, Owners{3, 2, 1, 0}})
        EXPECT_TRUE(same_bytes(one, train(spec, options, owners)));
    EXPECT_TRUE(same_bytes(one, train(spec, options, {0, 1, 0, 1}, true)));
    options.recomputed = kWhole;
    EXPECT_TRUE(same_bytes(one, train(spec, options, {1, 0, 1, 0})));
    EXPECT_TRUE(same_bytes(one, train(spec, options, {0, 0, 0, 0})));
    options.recomputed = {{1, 4}, {5, 5}, {9, 12}};
    EXPECT_TRUE(same_bytes(one, train(spec, options, {1, 0, 1, 0})));
    EXPECT_FALSE(same_bytes(one, train(spec, options, {0}))) << "B shows in the bytes";
}

TEST_F(SumBlocks, AdamsMomentsAreTheSameToo) {
    const ModelSpec spec = zoo("lenet5", {1, 28, 28});
    ExecutorOptions options;
    options.optimizer = {"adam", 0, 0};
    const TensorMap one = train(spec, options, Owners(8, 0));
    for (const Owners& owners : {Owners{0, 1, 2, 3, 4, 5, 6, 7}, Owners{0, 0, 0, 0, 0, 0, 0, 1}})
        EXPECT_TRUE(same_bytes(one, train(spec, options, owners)));
}

// The weights are those of one block where the sums are exact, and the statistics nearly.
TEST_F(SumBlocks, BatchNormsStatisticsAreThoseOfOneBlock) {
    const ModelSpec spec = zoo("mobilenet_v2", {3, 32, 32});
    ExecutorOptions options;
    options.seed = 5;
    std::vector<TensorMap> states;
    for (const int blocks : {1, 4}) {
        Holders holders(spec, options, Owners(static_cast<std::size_t>(blocks), 0));
        holders.step(spec, 0, {4, 4, 4, 4});
        states.push_back(holders.state());
    }
    for (std::size_t i = 0; i < states[0].size(); ++i) {
        const std::string& name = states[0][i].name;
        if (name.ends_with("num_batches_tracked")) {
            EXPECT_EQ(states[1][i].tensor.as<std::int64_t>()[0], 4) << name;
            EXPECT_EQ(states[0][i].tensor.as<std::int64_t>()[0], 4) << name;
        } else if (name.find("running_") != std::string::npos) {
            const auto one = states[0][i].tensor.as<float>();
            const auto four = states[1][i].tensor.as<float>();
            for (std::size_t k = 0; k < one.size(); ++k)
                EXPECT_NEAR(one[k], four[k], 1e-5 * std::abs(one[k]) + 1e-7) << name;
        }
    }
}

TEST_F(SumBlocks, WhatIsNotOfTheLayerIsRefused) {
    const ModelSpec spec = zoo("mobilenet_v2", {3, 32, 32});
    ExecutorOptions options;
    options.sum_blocks = 2;
    options.range = {0, 3};
    auto executor = std::move(*Executor::create(spec, options));
    const std::size_t bytes = executor->gradient_bytes().at(0);
    const auto values = [](DType dtype, std::size_t count) {
        return HostTensor::allocate(dtype, {static_cast<std::int64_t>(count)});
    };
    const std::size_t count = bytes / sizeof(float);
    EXPECT_TRUE(executor->add_sum(0, 1, {values(DType::kF32, count), ""}));
    EXPECT_FALSE(executor->add_sum(0, 1, {values(DType::kF32, count - 1), ""}));
    EXPECT_FALSE(executor->add_sum(0, 1, {values(DType::kF32, count + 1), ""}));
    EXPECT_FALSE(executor->add_sum(0, 1, {values(DType::kF64, count), ""}));
    EXPECT_FALSE(executor->add_sum(0, 1, {values(DType::kF32, count), "77"}));
    EXPECT_FALSE(executor->set_total(0, {values(DType::kF32, count), "3"}));
    EXPECT_TRUE(executor->set_total(0, {values(DType::kF32, count), "7"}));
    EXPECT_TRUE(executor->add_sum(0, 2, {values(DType::kF32, 1), "0"}));  // none has one
    EXPECT_FALSE(executor->add_statistics(0, values(DType::kU8, 3)));
    EXPECT_FALSE(executor->add_statistics(
        0, values(DType::kF32, executor->statistics_bytes() / sizeof(float))));
    EXPECT_TRUE(executor->add_statistics(0, values(DType::kU8, executor->statistics_bytes())));
}

}  // namespace
}  // namespace ecopipe::test
