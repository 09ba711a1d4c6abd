#include "fl_server/server_config.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

TEST(ServerConfig, ReadsWhatIsThereAndKeepsTheRestAtDefaults) {
    const auto config = parse_server_config(
        "strategy:\n  - {name: eco-fl, groups: 3, mixing: model}\n  - {name: fedasync, alpha: "
        "0.9}\n"
        "robust: {rule: trimmed_mean, trim: 0.1}\n"
        "client: {epochs: 3, optimizer: adam, lr: 0.001, mu: 0.1, clip: 5}\n"
        "simulation: {bands: [{low_s: 1, high_s: 2}], labels: tied}\n"
        "limits: {norm_clip: 7, weight_max: 3}\n",
        "server.yaml");
    ASSERT_TRUE(config) << config.error().message;
    const auto eco = config->strategy("eco-fl");
    EXPECT_EQ(eco->parameters.integer("groups"), 3U);
    EXPECT_EQ(eco->parameters.word("mixing"), "model");
    EXPECT_EQ(eco->parameters.number("lambda"), 0.02);
    EXPECT_EQ(eco->robust.rule, Combine::Rule::kTrimmedMean);
    EXPECT_EQ(config->strategy("fedavg")->parameters.word("late"), "drop");
    EXPECT_EQ(config->limits.norm_clip, 7);
    EXPECT_EQ(config->limits.weight_max, 3);
    EXPECT_EQ(config->simulation.bands.size(), 1U);
    EXPECT_EQ(config->client_settings.pairs(0.05).size(), 5U);
}

TEST(ServerConfig, WhatIsPrintedReadsBackAsTheSame) {
    ServerConfig config;
    config.client_settings.epochs = 3;
    std::vector<std::string> names;
    for (const StrategyKind& kind : strategy_kinds()) names.push_back(kind.name);
    const auto text = config_text(config, names);
    ASSERT_TRUE(text);
    const auto again = parse_server_config(*text, "printed");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(config_text(*again, names).value(), *text);
}

TEST(ServerConfig, TheStrategysOwnMuStandsInUnlessTheClientHasOne) {
    ClientSettings client;
    EXPECT_TRUE(client.pairs().empty());
    ASSERT_EQ(client.pairs(0.05).size(), 1U);
    EXPECT_EQ(client.pairs(0.05)[0].value, "0.05");
    client.mu = 0;
    EXPECT_EQ(std::stod(client.pairs(0.05)[0].value), 0);
}

TEST(ServerConfig, RefusesWhatItDoesNotKnow) {
    for (const char* bad :
         {"strategy: {name: fedavg, groups: 3}", "strategy: {name: nothing}",
          "strategy: {name: fedavg, late: perhaps}", "strategy: [{name: fedavg}, {name: fedavg}]",
          "robust: {rule: mean}", "robust: {rule: trimmed_mean, trim: 0.5}",
          "client: {optimizer: rmsprop}", "client: {mu: -1}", "simulation: {split: half}",
          "simulation: {bands: [{low_s: 3, high_s: 2}]}", "limits: {norm_max: 0}", "rounds: 3"}) {
        const auto config = parse_server_config(bad, "server.yaml");
        ASSERT_FALSE(config) << bad;
        EXPECT_EQ(config.error().code, ExitCode::kBadFile) << bad;
        EXPECT_NE(config.error().message.find("server.yaml"), std::string::npos);
    }
}

}  // namespace
}  // namespace ecopipe
