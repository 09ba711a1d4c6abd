// What fails changes nothing but the time: trainings over an engine that goes back to an earlier
// state at any call, compared with the one that nothing happened to.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "core/random.h"
#include "orchestrator/train/trainer.h"
#include "tests/support/small_training.h"

namespace ecopipe {
namespace {

// A model of one number, which each step mixes anew; its losses fall until step 9 and then rise.
class FailingEngine : public TrainingEngine {
  public:
    // At which calls it fails (counted from 0), and how many steps it goes back then; -1: to the
    // state that the step under way leads to.
    std::map<int, int> failures;
    std::optional<int> dies_at;  // after so many calls there is no further step: the portal's end
    [[nodiscard]] int calls() const { return calls_; }

    Result<void> load(const TensorMap& state, std::uint64_t step) override {
        static_cast<void>(state);
        states_ = {{step, step == 0 ? 1U : number(state)}};
        at_ = base_ = step;
        return {};
    }
    Result<void> start_step(std::uint64_t step, std::vector<Batch> micro_batches, double,
                            bool) override {
        EXPECT_EQ(step, at_);
        if (dies_at && calls_ >= *dies_at) return fail(ExitCode::kUnreachable, "killed");
        const HostTensor& labels = micro_batches.front().labels;
        first_label_ = static_cast<std::uint64_t>(labels.as<std::int64_t>()[0]);
        return {};
    }
    Result<StepOutcome> finish_step() override {
        StepOutcome outcome;
        outcome.loss.sum = outcome.loss.weight = 1;
        outcome.squared_gradient_norms = {1};
        static_cast<void>(fails());
        return outcome;
    }
    Result<void> commit(double learning_rate, double) override {
        std::uint64_t rate = 0;
        std::memcpy(&rate, &learning_rate, sizeof rate);
        states_[at_ + 1] = keyed_seed(states_[at_], {first_label_, rate});
        if (!fails()) ++at_;
        return {};
    }
    Result<LossTotals> evaluate(const Dataset& data, int, int) override {
        LossTotals loss;
        loss.labels = static_cast<std::uint64_t>(data.size());
        loss.weight = 1;
        loss.sum = at_ <= 9 ? 20 - static_cast<double>(at_) : 11 + static_cast<double>(at_);
        static_cast<void>(fails());
        return loss;
    }
    Result<TensorMap> state(bool) override {
        static_cast<void>(fails());
        TensorMap state{{"w", HostTensor::allocate(DType::kI64, {1})}};
        std::memcpy(state[0].tensor.data(), &states_[at_], sizeof(std::uint64_t));
        return state;
    }
    Result<void> set_base(const TensorMap& state, std::uint64_t step) override {
        EXPECT_EQ(number(state), states_[step]);
        base_ = step;
        static_cast<void>(fails());
        return {};
    }
    std::optional<std::uint64_t> take_rewind() override {
        return std::exchange(rewind_, std::nullopt);
    }
    void end(ExitCode, const std::string&) override {}

  private:
    static std::uint64_t number(const TensorMap& state) {
        std::uint64_t value = 0;
        std::memcpy(&value, state[0].tensor.data(), sizeof value);
        return value;
    }
    bool fails() {
        const auto found = failures.find(calls_++);
        if (found == failures.end()) return false;
        const auto back = static_cast<std::uint64_t>(std::max(found->second, 0));
        if (found->second < 0 && states_.contains(at_ + 1))
            ++at_;
        else
            at_ = std::max(base_, at_ - std::min(at_, back));
        states_.erase(states_.upper_bound(at_), states_.end());
        rewind_ = at_;
        return true;
    }

    std::map<std::uint64_t, std::uint64_t> states_;
    std::uint64_t at_ = 0;
    std::uint64_t base_ = 0;
    std::uint64_t first_label_ = 0;
    std::optional<std::uint64_t> rewind_;
    int calls_ = 0;
};

using test::Left;
using test::SmallTraining;
using test::Ways;

class TrainerFailures : public testing::TestWithParam<Ways> {
  protected:
    static Left train(FailingEngine& engine) {
        SmallTraining training(GetParam());
        const auto result = training.live(engine, {});
        EXPECT_TRUE(result) << result.error().message;
        return result ? training.left(*result) : Left{};
    }
};

TEST_P(TrainerFailures, OneAtAnyCallChangesNothing) {
    FailingEngine quiet;
    const Left expected = train(quiet);
    ASSERT_GT(expected.steps, 8U);
    ASSERT_EQ(expected.recorded.size(), expected.steps);
    for (int call = 0; call < quiet.calls(); ++call)
        for (const int back : {-1, 0, 1, 2, 5}) {
            FailingEngine engine;
            engine.failures = {{call, back}};
            ASSERT_EQ(train(engine), expected) << "call " << call << ", back " << back;
        }
}

TEST_P(TrainerFailures, NorDoManyInAnyOrder) {
    FailingEngine quiet;
    const Left expected = train(quiet);
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
        Rng rng(seed);
        FailingEngine engine;
        for (int call = 0; call < 200; ++call)
            if (rng.below(5) == 0) engine.failures[call] = static_cast<int>(rng.below(4)) - 1;
        ASSERT_EQ(train(engine), expected) << "seed " << seed;
    }
}

// They wait in memory, and the portal dies with them: no checkpoint may know of them, or whoever
// resumes would never write them.
TEST_P(TrainerFailures, BestWeightsThatFindNoRoomBeforeThePortalDiesAreFoundAgain) {
    if (!GetParam().validation) return;
    FailingEngine quiet;
    const Left expected = train(quiet);
    ASSERT_FALSE(expected.best.empty());
    for (int call = 1; call < quiet.calls(); ++call) {
        SmallTraining training(GetParam());
        training.take_best(false);
        FailingEngine first;
        first.dies_at = call;
        if (training.live(first, {})) continue;  // it had no further step
        training.take_best(true);
        FailingEngine second;
        const auto result = training.live(second, {});
        ASSERT_TRUE(result) << result.error().message;
        ASSERT_EQ(training.left(*result), expected) << "killed after call " << call;
    }
}

INSTANTIATE_TEST_SUITE_P(Ways, TrainerFailures,
                         testing::Values(Ways{}, Ways{.checkpoint_every = 0},
                                         Ways{.early_stop = 0, .checkpoint_every = 2},
                                         Ways{.validation = false, .checkpoint_every = 1},
                                         Ways{.validation = false, .checkpoint_every = 0}));

}  // namespace
}  // namespace ecopipe
