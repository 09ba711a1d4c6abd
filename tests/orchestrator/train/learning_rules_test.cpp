// The pure rules of training: learning rates, clipping, when to stop; and reading ahead.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "orchestrator/train/lr_schedule.h"
#include "orchestrator/train/validation_history.h"
#include "stage_runtime/data/evaluation_reader.h"
#include "stage_runtime/engine/run/clip_scale.h"

namespace ecopipe {
namespace {

TEST(LearningRate, WarmsUpThenDecays) {
    LearningRateSchedule schedule;
    EXPECT_EQ(schedule.at(0.1, 7, 10), 0.1);
    schedule.warmup_steps = 4;
    EXPECT_DOUBLE_EQ(schedule.at(0.1, 0, 10), 0.025);
    EXPECT_DOUBLE_EQ(schedule.at(0.1, 3, 10), 0.1);
    schedule.name = "step";
    schedule.step_size = 2;
    schedule.gamma = 0.5;
    EXPECT_DOUBLE_EQ(schedule.at(0.1, 4, 10), 0.1);
    EXPECT_DOUBLE_EQ(schedule.at(0.1, 5, 10), 0.1);
    EXPECT_DOUBLE_EQ(schedule.at(0.1, 6, 10), 0.05);
    EXPECT_DOUBLE_EQ(schedule.at(0.1, 9, 10), 0.025);
    schedule.name = "cosine";
    EXPECT_DOUBLE_EQ(schedule.at(0.1, 4, 10), 0.1);
    EXPECT_DOUBLE_EQ(schedule.at(0.1, 7, 10), 0.05);
    EXPECT_NEAR(schedule.at(0.1, 9, 10), 0.05 * (1 + std::cos(M_PI * 5 / 6)), 1e-15);
    EXPECT_DOUBLE_EQ(schedule.at(0.1, 2, 3), 0.075);  // a run that ends within its warm-up
}

TEST(Clipping, ScalesDownToTheNormAlone) {
    EXPECT_EQ(clip_scale(5, 0), 1.0);
    EXPECT_EQ(clip_scale(0.5, 1), 1.0);
    EXPECT_NEAR(clip_scale(4, 1), 0.25, 1e-6);
    EXPECT_EQ(clip_scale(0, 1), 1.0);
}

TEST(ValidationHistory, CountsSinceTheBestAndForgetsWhatIsReplayed) {
    ValidationHistory history;
    EXPECT_EQ(history.without_improvement(), 0U);
    EXPECT_FALSE(history.add(5, std::numeric_limits<double>::quiet_NaN()));
    EXPECT_EQ(history.without_improvement(), 1U);
    EXPECT_TRUE(history.add(10, 2.0));
    EXPECT_FALSE(history.add(15, 2.0));  // equal is no improvement
    EXPECT_TRUE(history.add(20, 1.5));
    EXPECT_FALSE(history.add(25, 1.7));
    EXPECT_EQ(history.best_step(), 20U);
    EXPECT_EQ(history.without_improvement(), 1U);

    Document document(Json{{"validation", Json::parse(history.json().dump())}}, "checkpoint");
    Fields root = document.root();
    const ValidationHistory read = ValidationHistory::read(root.objects("validation"));
    ASSERT_TRUE(document.finish());
    EXPECT_EQ(read.json(), history.json());

    history.rewind(19);
    EXPECT_EQ(history.best_step(), 10U);
    EXPECT_EQ(history.without_improvement(), 1U);
    EXPECT_FALSE(history.has(20));
    EXPECT_TRUE(history.has(15));
}

std::vector<Batch> numbered(std::uint64_t step) {
    Batch batch{HostTensor::allocate(DType::kI64, {1}), HostTensor::allocate(DType::kI64, {1})};
    batch.labels.as<std::int64_t>()[0] = static_cast<std::int64_t>(step);
    return {batch};
}

std::int64_t number_of(Result<std::vector<Batch>>& batch) {
    return batch ? batch->front().labels.as<std::int64_t>()[0] : -1;
}

TEST(BatchReader, KeepsOrderAndItsBoundAndStartsAgain) {
    std::atomic<std::uint64_t> newest{0};
    BatchReader reader(
        [&](std::uint64_t step) -> Result<std::vector<Batch>> {
            std::this_thread::sleep_for(std::chrono::microseconds(step % 3 * 300));
            std::uint64_t seen = newest.load();
            while (seen < step && !newest.compare_exchange_weak(seen, step)) {
            }
            return numbered(step);
        },
        3);
    reader.start(0, 100);
    for (std::uint64_t step = 0; step < 40; ++step) {
        auto batch = reader.take(step);
        EXPECT_EQ(number_of(batch), static_cast<std::int64_t>(step));
        EXPECT_LE(newest.load(), step + 1 + 4);
    }
    reader.start(7, 10);  // back, as after a failure
    for (std::uint64_t step = 7; step < 10; ++step) {
        auto batch = reader.take(step);
        EXPECT_EQ(number_of(batch), static_cast<std::int64_t>(step));
    }
}

TEST(BatchReader, HandsOnWhatWentWrong) {
    BatchReader reader(
        [](std::uint64_t step) -> Result<std::vector<Batch>> {
            if (step == 1) return fail(ExitCode::kBadFile, "a.jpg: is no whole JPEG");
            if (step == 2) throw std::runtime_error("thrown");
            return numbered(step);
        },
        2);
    reader.start(0, 3);
    EXPECT_TRUE(reader.take(0));
    EXPECT_EQ(reader.take(1).error().message, "a.jpg: is no whole JPEG");
    EXPECT_EQ(reader.take(2).error().message, "reading the batch of step 3: thrown");
}

// Its inputs are the indices that were asked for; index 5 is damaged.
class Numbered : public Dataset {
  public:
    explicit Numbered(std::int64_t size) : size_(size) {}
    std::int64_t size() const override { return size_; }
    Shape sample_shape() const override { return {1}; }
    int num_classes() const override { return 1; }
    std::int64_t label(std::int64_t) const override { return 0; }
    Result<Batch> batch(std::span<const std::int64_t> indices) const override {
        const auto n = static_cast<std::int64_t>(indices.size());
        Batch out{HostTensor::allocate(DType::kI64, {n}), HostTensor::allocate(DType::kI64, {n})};
        for (std::size_t i = 0; i < indices.size(); ++i) {
            if (indices[i] == 5) return fail(ExitCode::kBadFile, "5.png: is damaged");
            out.inputs.as<std::int64_t>()[i] = indices[i];
        }
        return out;
    }

  private:
    std::int64_t size_;
};

TEST(EvaluationReader, ReadsEverySampleOnceInOrder) {
    const Numbered data(5);
    EvaluationReader reader(data, 2, 3);
    ASSERT_EQ(reader.count(), 3U);
    std::vector<std::int64_t> seen;
    for (std::uint64_t i = 0; i < reader.count(); ++i) {
        const auto batch = reader.take();
        ASSERT_TRUE(batch);
        EXPECT_EQ(batch->labels.elements(), reader.samples(i));
        for (const std::int64_t index : batch->inputs.as<std::int64_t>()) seen.push_back(index);
    }
    EXPECT_EQ(seen, (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
    const Numbered empty(0);
    EXPECT_EQ(EvaluationReader(empty, 2, 1).count(), 0U);
}

TEST(EvaluationReader, HandsOnADamagedSampleAndMayBeLeftInTheMiddle) {
    const Numbered data(100);
    EvaluationReader reader(data, 4, 2);
    EXPECT_TRUE(reader.take());
    const auto damaged = reader.take();
    ASSERT_FALSE(damaged);
    EXPECT_EQ(damaged.error().message, "5.png: is damaged");
}

}  // namespace
}  // namespace ecopipe
