// What a device tells of a step, however long the step was.
#include "stage_runtime/stage/step_report.h"

#include <gtest/gtest.h>

#include "transport/limits.h"

namespace ecopipe {
namespace {

LossTotals loss_of(std::uint32_t micro_batch) {
    LossTotals loss;
    loss.weight = 1;
    loss.sum = 0.1 * (micro_batch + 1);
    return loss;
}

TEST(StepReport, LossesAndTimesThatFillMessagesComeInPieces) {
    const Instant start{};
    StepReport report;
    report.begin(start, {.actions = true, .each_loss = true, .sent_before = 100});
    StepTotals totals;
    const auto count = static_cast<std::uint32_t>(2 * kTraceLossesMax + 5);
    for (std::uint32_t micro_batch = 0; micro_batch < count; ++micro_batch) {
        const Instant at = start + std::chrono::milliseconds(micro_batch);
        for (const ActionKind kind : {ActionKind::kForward, ActionKind::kBackward})
            report.ran({kind, static_cast<int>(micro_batch), 0}, at,
                       at + std::chrono::microseconds(250));
        totals.losses[micro_batch] = loss_of(micro_batch);
    }
    report.take(totals);
    MemoryByUse peak;
    peak[MemoryUse::kStash] = 7;
    const StepReport::Told told =
        report.finish(start + std::chrono::milliseconds(count), peak, 150);

    std::vector<ActionTime> actions;
    std::vector<MicroBatchLoss> losses;
    const auto add = [&](const auto& said) {
        EXPECT_EQ(said.validate(), "");
        EXPECT_LE(said.actions.size(), kTraceActionsMax);
        EXPECT_LE(said.losses.size(), kTraceLossesMax);
        actions.insert(actions.end(), said.actions.begin(), said.actions.end());
        losses.insert(losses.end(), said.losses.begin(), said.losses.end());
    };
    EXPECT_EQ(told.before.size(), 2U);
    for (const Trace& piece : told.before) add(piece);
    add(told.done);
    ASSERT_EQ(actions.size(), 2U * count);
    ASSERT_EQ(losses.size(), count);
    for (std::uint32_t micro_batch = 0; micro_batch < count; ++micro_batch) {
        EXPECT_EQ(losses[micro_batch].micro_batch, micro_batch);
        EXPECT_EQ(losses[micro_batch].loss.sum, loss_of(micro_batch).sum);
        EXPECT_EQ(actions[2 * micro_batch + 1].micro_batch, micro_batch);
        EXPECT_EQ(actions[2 * micro_batch + 1].kind, 'B');
    }
    EXPECT_EQ(told.done.sent_bytes, 50U);
    EXPECT_EQ(told.done.peak_memory, peak);
    EXPECT_DOUBLE_EQ(told.done.busy_ms, 0.5 * count);
    EXPECT_DOUBLE_EQ(told.done.wait_ms, 0.5 * count);
    EXPECT_EQ(told.done.loss.weight, 0);
}

// Floating sums depend on their order.
TEST(StepReport, ASoleHolderAddsItsLossesUpInTheOrderOfTheMicroBatches) {
    StepReport report;
    report.begin({}, {});
    LossTotals wanted;
    for (std::uint32_t micro_batch = 0; micro_batch < 50; ++micro_batch)
        wanted.add(loss_of(micro_batch));
    for (std::uint32_t micro_batch = 50; micro_batch-- > 0;)
        report.loss({micro_batch}, loss_of(micro_batch));
    report.ran({ActionKind::kForward, 0, 0}, {}, {});
    StepReport::Told told = report.finish({}, {}, 0);
    EXPECT_TRUE(told.before.empty());
    EXPECT_TRUE(told.done.actions.empty());
    EXPECT_TRUE(told.done.losses.empty());
    EXPECT_EQ(told.done.loss.sum, wanted.sum);

    // Nothing of one step counts in the next.
    report.begin({}, {.actions = false, .each_loss = true, .sent_before = 0});
    told = report.finish({}, {}, 0);
    EXPECT_TRUE(told.done.losses.empty());
    EXPECT_EQ(told.done.loss.sum, 0);
}

}  // namespace
}  // namespace ecopipe
