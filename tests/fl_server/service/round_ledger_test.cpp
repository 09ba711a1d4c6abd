#include "fl_server/service/round_ledger.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace ecopipe {
namespace {

class RoundLedgerTest : public ::testing::Test {
  protected:
    RoundLedger server_{JudgedBy::kServer};
    RoundLedger clusters_{JudgedBy::kClusters};

    static strategy_decision::Commit commit_of(std::vector<std::string> clusters,
                                               std::vector<std::string> late = {}) {
        strategy_decision::Commit commit;
        commit.group = 3;
        commit.clusters = std::move(clusters);
        commit.late = std::move(late);
        return commit;
    }
    static UpdateRow update_of(const char* cluster, std::uint64_t samples, std::uint64_t claimed) {
        UpdateRow row;
        row.cluster = cluster;
        row.base_version = 4;
        row.samples = samples;
        row.claimed = claimed;
        return row;
    }
    // A line with nothing but these rejections in it.
    static Json rejected_in(RoundLedger& ledger, std::uint64_t version = 1) {
        return Json::parse(ledger.close(version, 0, "fedavg", commit_of({}), {})).at("rejected");
    }
    // The version that clusters which all tested `version` call the best, or 0.
    std::uint64_t verdict(std::uint64_t version, double accuracy, bool kept = true) {
        return clusters_
            .take_verdict({{.version = version, .samples = 10, .accuracy = accuracy}}, 0,
                          [&](std::uint64_t asked) {
                              EXPECT_EQ(asked, version);
                              return kept;
                          })
            .value_or(0);
    }
};

// ---- reasons

TEST_F(RoundLedgerTest, ReasonsOfAClusterAreJoinedUpToEight) {
    std::string expected;
    for (std::size_t n = 0; n < RoundLedger::kReasonsMax + 3; ++n) {
        const std::string reason = fmt::format("reason {:c}", 'a' + static_cast<int>(n));
        server_.note_rejected("d", reason);
        if (n < 8) expected += (n == 0 ? "" : "; ") + reason;
    }
    server_.note_rejected("e", "its own");
    EXPECT_EQ(rejected_in(server_), Json({{"d", expected}, {"e", "its own"}}));
}

TEST_F(RoundLedgerTest, AReasonThatWasGivenIsNotGivenAgain) {
    for (const char* reason : {"late", "large", "late", "large"})
        server_.note_rejected("d", reason);
    EXPECT_EQ(rejected_in(server_), Json({{"d", "late; large"}}));
}

TEST_F(RoundLedgerTest, EachRoundHasItsOwn) {
    server_.note_rejected("d", "late");
    server_.note_dropped("e", "too old");
    server_.note_dropped("e", "of no group");
    server_.note_bytes(5);
    server_.note_bytes(7);
    const Json first = Json::parse(server_.close(1, 0, "fedavg", commit_of({}), {}));
    EXPECT_EQ(first.at("rejected"), Json({{"d", "late"}}));
    EXPECT_EQ(first.at("dropped"), Json({{"e", "of no group"}}));
    EXPECT_EQ(first.at("bytes_in"), 12);
    const Json second = Json::parse(server_.close(2, 0, "fedavg", commit_of({}), {}));
    EXPECT_EQ(second.at("rejected"), Json::object());
    EXPECT_FALSE(second.contains("dropped"));
    EXPECT_EQ(second.at("bytes_in"), 0);
}

TEST_F(RoundLedgerTest, WhoOwedAnUpdateIsNamedBesideItsOtherReasons) {
    server_.note_rejected("d", "large");
    const Json line = Json::parse(server_.close(1, 0, "fedavg", commit_of({"a"}, {"c", "d"}), {}));
    const std::string late = "no update before the round's deadline";
    EXPECT_EQ(line.at("rejected"), Json({{"c", late}, {"d", "large; " + late}}));
}

// ---- the line

TEST_F(RoundLedgerTest, ALineIsTheseBytes) {
    server_.start(2);
    server_.note_bytes(99);
    EXPECT_EQ(server_.close(7, 3.5, "fedavg", commit_of({"a", "b"}),
                            {update_of("a", 40, 40), update_of("b", 60, 60)}),
              R"({"round":7,"wall_s":1.5,"strategy":"fedavg","group":3,"clusters":["a","b"],)"
              R"("samples":100,"bytes_in":99,"rejected":{}})");
    EXPECT_EQ(server_.awaited(), 7U);
    const auto told = server_.tell(Evaluation{.loss = 0.25, .accuracy = 0.5});
    EXPECT_EQ(told.line,
              R"({"round":7,"wall_s":1.5,"strategy":"fedavg","group":3,"clusters":["a","b"],)"
              R"("samples":100,"bytes_in":99,"rejected":{},"accuracy":0.5,"loss":0.25,"best":7})");
}

TEST_F(RoundLedgerTest, TheNextRoundBeginsWithAVersionUnlessTasksBeginLater) {
    server_.start(2);
    const auto wall_s = [&](std::uint64_t version, double now_s) {
        return Json::parse(server_.close(version, now_s, "fedavg", commit_of({}), {}))
            .at("wall_s")
            .get<double>();
    };
    EXPECT_EQ(wall_s(1, 5), 3);
    EXPECT_EQ(wall_s(2, 9), 4);
    server_.start(20);
    EXPECT_EQ(wall_s(3, 21), 1);
}

TEST_F(RoundLedgerTest, WhatWasCutIsNamed) {
    const Json line = Json::parse(server_.close(1, 0, "fedavg", commit_of({}),
                                                {update_of("a", 40, 40), update_of("b", 60, 61)}));
    EXPECT_EQ(line.at("capped"), Json({{"b", {{"samples", 61}, {"counted", 60}}}}));
    EXPECT_EQ(line.at("samples"), 100);
    EXPECT_FALSE(line.contains("clients"));
}

TEST_F(RoundLedgerTest, WhatClustersFoundWeighsByTheirTestSamples) {
    UpdateRow a = update_of("a", 1, 1);
    a.eval_samples = 30;
    a.eval_accuracy = 0.5;
    a.eval_loss = 2;
    UpdateRow b = update_of("b", 1, 1);
    b.eval_samples = 10;
    b.eval_accuracy = 0.25;
    b.eval_loss = 4;
    const Json line =
        Json::parse(clusters_.close(5, 0, "fedavg", commit_of({}), {a, b, update_of("c", 1, 1)}));
    EXPECT_EQ(line.at("client_accuracy"), 0.4375);
    EXPECT_EQ(line.at("client_loss"), 2.5);
    EXPECT_EQ(line.at("clients"),
              Json({{"a", {{"version", 4}, {"samples", 30}, {"accuracy", 0.5}, {"loss", 2.0}}},
                    {"b", {{"version", 4}, {"samples", 10}, {"accuracy", 0.25}, {"loss", 4.0}}}}));
    const auto told = clusters_.tell({});
    EXPECT_EQ(told.round.round, 5U);
    EXPECT_EQ(told.round.accuracy, 0.4375);
    EXPECT_EQ(told.round.loss, 2.5);
    EXPECT_FALSE(told.is_best) << "clusters judge by their verdict";
}

TEST_F(RoundLedgerTest, ARoundIsSeenAsItsLineSays) {
    server_.start(1);
    server_.note_rejected("d", "late");
    static_cast<void>(
        server_.close(9, 3, "fedavg", commit_of({"a", "b", "c"}), {update_of("a", 7, 8)}));
    const RoundView round = server_.tell(Evaluation{.loss = 0.125, .accuracy = 0.75}).round;
    EXPECT_EQ(round.round, 9U);
    EXPECT_EQ(round.wall_s, 2);
    EXPECT_EQ(round.group, 3U);
    EXPECT_EQ(round.clusters, 3U);
    EXPECT_EQ(round.samples, 7U);
    EXPECT_EQ(round.accuracy, 0.75);
    EXPECT_EQ(round.loss, 0.125);
    EXPECT_EQ(round.rejected, 1U);
    static_cast<void>(clusters_.close(1, 0, "fedavg", commit_of({}), {}));
    const RoundView unknown = clusters_.tell({}).round;
    EXPECT_EQ(unknown.accuracy, -1) << "nobody tested";
    EXPECT_EQ(unknown.loss, -1);
}

TEST_F(RoundLedgerTest, TheLastHundredRoundsAreSeen) {
    for (std::uint64_t n = 1; n <= 103; ++n) server_.show({.round = n});
    ASSERT_EQ(server_.recent().size(), 100U);
    EXPECT_EQ(server_.recent().front().round, 4U);
    EXPECT_EQ(server_.recent().back().round, 103U);
}

// ---- the best

TEST_F(RoundLedgerTest, TheServersBestIsTheFirstOfItsScore) {
    EXPECT_EQ(server_.best_score(), -1);
    const auto told = [&](std::uint64_t version, double accuracy) {
        const std::string line = server_.close(version, 0, "fedavg", commit_of({}), {});
        EXPECT_FALSE(Json::parse(line).contains("best")) << "it is yet to be judged";
        const auto after = server_.tell(Evaluation{.loss = 0, .accuracy = accuracy});
        server_.forget_awaited();
        EXPECT_EQ(Json::parse(after.line).at("best"), server_.best_version());
        return after.is_best;
    };
    EXPECT_TRUE(told(1, 0)) << "better than none";
    EXPECT_TRUE(told(2, 0.5));
    EXPECT_FALSE(told(3, 0.5));
    EXPECT_FALSE(told(4, 0.25));
    EXPECT_EQ(server_.best_version(), 2U);
    EXPECT_EQ(server_.best_score(), 0.5);
}

TEST_F(RoundLedgerTest, TheClustersBestIsOfTheirVerdictAndInTheNextLine) {
    const auto line = [&](std::uint64_t version) {
        return Json::parse(clusters_.close(version, 0, "fedavg", commit_of({}), {}));
    };
    EXPECT_FALSE(line(1).contains("best")) << "there is none";
    EXPECT_EQ(verdict(1, 0.5), 1U);
    EXPECT_EQ(line(2).at("best"), 1);
    EXPECT_EQ(verdict(2, 0.5), 0U) << "no better";
    EXPECT_EQ(verdict(3, 0.75, false), 0U) << "its model is gone";
    EXPECT_EQ(clusters_.best_score(), 0.5);
    EXPECT_EQ(verdict(4, 0.75), 4U);
    EXPECT_EQ(clusters_.best_version(), 4U);
    EXPECT_FALSE(clusters_.take_verdict({}, 0, [](std::uint64_t) { return true; }))
        << "less than a majority";
}

TEST_F(RoundLedgerTest, TheVersionThatAllBeganFromMayBeTheBest) {
    EXPECT_FALSE(verdict(0, 0.5));
    EXPECT_EQ(clusters_.best_score(), 0.5);
    EXPECT_EQ(Json::parse(clusters_.close(1, 0, "fedavg", commit_of({}), {})).at("best"), 0);
}

TEST_F(RoundLedgerTest, UnderAnotherJudgeTheBestHasNoScoreAnyMore) {
    static_cast<void>(server_.close(6, 0, "fedavg", commit_of({}), {}));
    static_cast<void>(server_.tell(Evaluation{.loss = 0, .accuracy = 0.9}));
    Json snapshot;
    server_.save(snapshot);
    EXPECT_EQ(snapshot.at("best_by"), "server");
    RoundLedger same(JudgedBy::kServer);
    same.restore(snapshot);
    EXPECT_EQ(same.best_score(), 0.9);
    clusters_.restore(snapshot);
    EXPECT_EQ(clusters_.best_score(), -1);
    EXPECT_EQ(clusters_.best_version(), 6U) << "its model is there all the same";
    EXPECT_EQ(verdict(7, 0.1), 7U);
    clusters_.save(snapshot);
    EXPECT_EQ(snapshot.at("best_by"), "clients");
    same.restore(snapshot);
    EXPECT_EQ(same.best_score(), -1);
}

// ---- over a restart

TEST_F(RoundLedgerTest, ASnapshotBringsBackTheRoundAtHand) {
    server_.start(2);
    server_.note_rejected("d", "late");
    server_.note_dropped("e", "old");
    server_.note_bytes(9);
    Json snapshot;
    server_.save(snapshot);
    EXPECT_EQ(snapshot, Json({{"rejected", {{"d", "late"}}},
                              {"dropped", {{"e", "old"}}},
                              {"bytes_in", 9},
                              {"round_started_s", 2.0},
                              {"best_score", -1.0},
                              {"best_version", 0},
                              {"best_by", "server"}}));
    RoundLedger other(JudgedBy::kServer);
    other.restore(snapshot);
    EXPECT_FALSE(other.awaited());
    EXPECT_EQ(other.close(1, 5, "fedavg", commit_of({}), {}),
              server_.close(1, 5, "fedavg", commit_of({}), {}));
}

TEST_F(RoundLedgerTest, AnAwaitedVersionIsToldAfterARestart) {
    const std::string line = server_.close(4, 1, "fedavg", commit_of({"a"}), {});
    const Evaluation evaluation{.loss = 0.5, .accuracy = 0.25};
    // Evaluated already, it is still awaited without: it may not have got into the journal.
    const auto told = server_.tell(evaluation);
    Json snapshot;
    server_.save(snapshot);
    EXPECT_EQ(snapshot.at("awaiting"), 4);
    EXPECT_EQ(snapshot.at("awaiting_line"), line);
    RoundLedger other(JudgedBy::kServer);
    other.restore(snapshot);
    EXPECT_EQ(other.awaited(), 4U);
    const auto again = other.tell(evaluation);
    EXPECT_EQ(again.line, told.line);
    EXPECT_FALSE(again.is_best) << "it is already";
    other.forget_awaited();
    EXPECT_FALSE(other.awaited());
    Json after;
    other.save(after);
    EXPECT_FALSE(after.contains("awaiting"));
    EXPECT_FALSE(after.contains("awaiting_line"));
}

TEST_F(RoundLedgerTest, ASnapshotThatLacksSomethingIsRefused) {
    static_cast<void>(server_.close(1, 0, "fedavg", commit_of({}), {}));
    Json whole;
    server_.save(whole);
    for (const auto& [key, value] : whole.items()) {
        if (key == "awaiting") continue;  // then none is
        Json damaged = whole;
        damaged.erase(key);
        EXPECT_THROW(RoundLedger(JudgedBy::kServer).restore(damaged), Json::exception) << key;
    }
    whole["rejected"] = {{"d", 7}};
    EXPECT_THROW(RoundLedger(JudgedBy::kServer).restore(whole), Json::exception);
}

}  // namespace
}  // namespace ecopipe
