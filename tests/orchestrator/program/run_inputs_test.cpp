#include "orchestrator/program/run_inputs.h"

#include <gtest/gtest.h>

#include "orchestrator/program/train_command_line.h"

namespace ecopipe {
namespace {

OrderedJson flags_of(std::vector<const char*> flags) {
    flags.insert(flags.begin(), {"ecopipe-train", "--single", "--model", "lenet5", "--out", "x"});
    auto options = parse_train_options(static_cast<int>(flags.size()), flags.data());
    EXPECT_TRUE(options) << options.error().message;
    ModelSpec spec;
    spec.zoo = "lenet5";
    return training_flags(**options, spec);
}

std::string refusal(const OrderedJson& before, const OrderedJson& now) {
    const auto compared = compare_flags(before, now, "the checkpoint");
    return compared ? "" : compared.error().message;
}

TEST(Resume, WhatNoByteDependsOnMayChange) {
    const OrderedJson before = flags_of({"--data", "tensors:data/x", "--init", "data/w"});
    const std::vector<std::vector<const char*>> same{
        {"--data", "tensors:./data/x", "--init", "data/w"},
        {"--data", "tensors:data/y/../x/", "--init", "./data/w"},
        {"--data", "tensors:data/x", "--init", "data/w", "--epochs", "9"},
        {"--data", "tensors:data/x", "--init", "data/w", "--steps", "9"},
        {"--data", "tensors:data/x", "--init", "data/w", "--threads", "2"},
        {"--data", "tensors:data/x", "--init", "data/w", "--checkpoint-every", "3"},
        {"--data", "tensors:data/x", "--init", "data/w", "--no-evaluation"},
        {"--data", "tensors:data/x", "--init", "data/w", "--replicas", "off"},
        {"--data", "tensors:data/x", "--init", "data/w", "--peer-timeout-s", "9"},
    };
    for (const auto& flags : same) EXPECT_EQ(refusal(before, flags_of(flags)), "") << flags.back();
    EXPECT_NE(refusal(before, flags_of({"--data", "tensors:data/z", "--init", "data/w"}))
                  .find("--resume: --data was"),
              std::string::npos);
    EXPECT_NE(refusal(before, flags_of({"--data", "tensors:data/x", "--init", "data/v"}))
                  .find("--resume: --init was"),
              std::string::npos);
    EXPECT_NE(
        refusal(before, flags_of({"--data", "tensors:data/x", "--init", "data/w", "--batch", "32"}))
            .find("--resume: --batch was 64 in the checkpoint, found 32"),
        std::string::npos);
}

}  // namespace
}  // namespace ecopipe
