#include "fl_server/service/server_config.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

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

TEST(ServerConfig, ReadsAndPrintsWhatLabelsStandFor) {
    const auto config = parse_server_config("classes: [ant, 'on', \"b ee\"]", "server.yaml");
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->classes.names, (std::vector<std::string>{"ant", "on", "b ee"}));
    const auto text = config_text(*config, {"fedavg"});
    const auto again = parse_server_config(*text, "printed");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again->classes.names, config->classes.names);
    for (const char* bad :
         {"classes: []", "classes: [a, a]", "classes: ant", "classes: ['']", "classes: [1, 2]"}) {
        const auto refused = parse_server_config(bad, "server.yaml");
        ASSERT_FALSE(refused) << bad;
        EXPECT_NE(refused.error().message.find("classes"), std::string::npos);
    }
}

TEST(ServerConfig, EveryLimitHasItsRange) {
    struct Range {
        const char* key;
        double low;
        double high;
        double step;  // the least beyond
    };
    constexpr double kPart = 1e-13;
    const std::vector<Range> ranges{
        {"norm_clip", 0, 1e15, kPart},    {"norm_max", 1e-12, 1e15, kPart},
        {"weight_max", 0, 1e15, kPart},   {"samples_max", 1, 0x1p40, 1},
        {"staleness_max", 0, 1e9, 1},     {"quarantine_after", 0, 1e6, 1},
        {"clusters_max", 1, 1e5, 1},      {"connections_per_address", 1, 1e5, 1},
        {"connections_per_s", 1, 1e5, 1}, {"silent_connections", 1, 4096, 1},
        {"credit_mib", 1, 65536, 1},      {"free_space_mib", 0, 0x1p30, 1},
        {"slices_max", 1, 1024, 1},       {"evaluation_timeout_s", 1, 0x1p20, 1},
        {"absence_s", 0, 1e9, 1}};
    const auto takes = [](const Range& range, double value) {
        const std::string number = range.step == 1
                                       ? std::to_string(static_cast<std::int64_t>(value))
                                       : fmt::format("{:e}", value);
        const auto config =
            parse_server_config(fmt::format("limits: {{{}: {}}}", range.key, number), "x.yaml");
        return config.has_value();
    };
    for (const Range& range : ranges) {
        EXPECT_TRUE(takes(range, range.low)) << range.key;
        EXPECT_TRUE(takes(range, range.high)) << range.key;
        EXPECT_FALSE(takes(range, range.low - range.step)) << range.key;
        const double beyond = range.step == 1 ? range.high + 1 : range.high * (1 + 1e-6);
        EXPECT_FALSE(takes(range, beyond)) << range.key;
    }
    // None is left out.
    const auto printed = config_text({}, {"fedavg"});
    const std::string limits = printed->substr(printed->find("limits:"));
    EXPECT_EQ(std::count(limits.begin(), limits.end(), '\n'),
              static_cast<std::ptrdiff_t>(ranges.size()) + 1);
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
