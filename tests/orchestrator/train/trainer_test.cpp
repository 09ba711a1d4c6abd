#include "orchestrator/train/trainer.h"

#include <gtest/gtest.h>

#include "orchestrator/program/train_command_line.h"
#include "orchestrator/program/train_options.h"

namespace ecopipe {
namespace {

TEST(PlanEpochs, CountsShortLastBatches) {
    TrainerOptions options;
    options.batch = 64;
    options.epochs = 2;
    const auto plan = plan_epochs(130, options);
    ASSERT_TRUE(plan);
    EXPECT_EQ(plan->steps_per_epoch, 3U);
    EXPECT_EQ(plan->steps, 6U);
    EXPECT_EQ(plan->last_batch, 2);
    options.drop_last = true;
    EXPECT_EQ(plan_epochs(130, options)->steps_per_epoch, 2U);
    EXPECT_EQ(plan_epochs(130, options)->last_batch, 64);
    EXPECT_FALSE(plan_epochs(63, options));
    options.has_steps = true;
    options.steps = 20;
    EXPECT_EQ(plan_epochs(130, options)->steps, 20U);
}

Result<std::optional<TrainOptions>> parse(std::vector<const char*> flags) {
    flags.insert(flags.begin(), "ecopipe-train");
    return parse_train_options(static_cast<int>(flags.size()), flags.data());
}

std::string refusal(std::vector<const char*> flags) {
    flags.insert(flags.end(), {"--data", "fashion-mnist", "--out", "x"});
    const auto parsed = parse(std::move(flags));
    return parsed ? "" : parsed.error().message;
}

TEST(TrainOptions, RefusesNonsenseFlags) {
    EXPECT_EQ(refusal({"--single", "--model", "lenet5"}), "");
    EXPECT_NE(
        refusal({"--single", "--model", "lenet5", "--lr", "nan"}).find("--lr: expected a number"),
        std::string::npos);
    EXPECT_NE(refusal({"--single", "--model", "lenet5", "--lr", "inf"}), "");
    EXPECT_NE(refusal({"--single", "--model", "lenet5", "--batch", "0"}), "");
    EXPECT_NE(refusal({"--single", "--model", "lenet5", "--batch", "1.5"}), "");
    EXPECT_NE(refusal({"--single", "--local", "--model", "lenet5"}), "");
    EXPECT_NE(refusal({"--single", "--plan", "p.json", "--model", "lenet5"}), "");
    EXPECT_NE(refusal({"--single", "--model", "lenet5", "--steps", "3", "--epochs", "2"}), "");
    EXPECT_NE(refusal({"--model", "lenet5"}), "");
    EXPECT_NE(refusal({"--single"}), "");
    EXPECT_NE(refusal({"--single", "--model", "lenet5", "--micro", "4"}),
              "");  // no guessed abbreviations
    EXPECT_NE(refusal({"--single", "--model", "lenet5", "--optimizer", "lion"}), "");
    EXPECT_NE(
        refusal({"--single", "--model", "lenet5", "--optimizer", "adam", "--momentum", "0.9"}), "");
    EXPECT_NE(refusal({"--single", "--model", "lenet5", "--classes", "1,,2"}), "");
    EXPECT_NE(refusal({"--cluster", "c", "--model", "lenet5", "--bind", "tcp://0.0.0.0:1"})
                  .find("--insecure"),
              std::string::npos);
}

TEST(ClientSettings, ContradictionsNameBothValues) {
    auto options =
        **parse({"--single", "--model", "lenet5", "--data", "d", "--out", "o", "--lr", "0.5"});
    EXPECT_TRUE(adopt_client_setting("batch", "16", options));
    EXPECT_EQ(options.trainer.batch, 16);
    EXPECT_TRUE(adopt_client_setting("lr", "0.5", options));
    EXPECT_EQ(adopt_client_setting("lr", "0.25", options).error().message,
              "--lr: the federation's server says 0.25, found 0.5");
    EXPECT_FALSE(adopt_client_setting("lr", "x", options));
    EXPECT_TRUE(adopt_client_setting("evaluate", "1", options));
    EXPECT_TRUE(options.trainer.evaluate_received);
    EXPECT_FALSE(adopt_client_setting("batch", "-3", options));
    EXPECT_FALSE(adopt_client_setting("sabotage", "1", options));
}

// The server asks, the cluster pays.
TEST(ClientSettings, NoEvaluationHoldsAgainstTheServersWish) {
    auto options =
        **parse({"--single", "--model", "lenet5", "--data", "d", "--out", "o", "--no-evaluation"});
    EXPECT_TRUE(adopt_client_setting("evaluate", "1", options));
    EXPECT_FALSE(options.trainer.evaluate_received);
}

}  // namespace
}  // namespace ecopipe
