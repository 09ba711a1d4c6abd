#include "fl_server/service/site_book.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

using Names = std::vector<std::string>;
using strategy_event::Admitted;
using strategy_event::Changed;
using strategy_event::Failed;
using strategy_event::Joined;
using strategy_event::Left;

class SiteBookTest : public ::testing::Test {
  protected:
    SiteBook sites_;

    static ClientFacts facts(const char* cluster, std::uint64_t samples = 100) {
        return {.cluster = cluster, .samples = samples, .label_counts = {}};
    }
    // Says Hello, and the strategy is told.
    void joins(const char* cluster, std::uint64_t samples = 100, bool tests = true) {
        const auto event = sites_.hello(facts(cluster, samples), tests);
        ASSERT_TRUE(event);
        EXPECT_EQ(sites_.note(*event), 0U);
    }
    void leaves(const char* cluster, double now_s) {
        sites_.leave(cluster, now_s);
        EXPECT_EQ(sites_.note(Left{cluster}), 0U);
    }
    static UpdateRow tested(const char* cluster, std::uint64_t version, std::uint64_t samples,
                            double accuracy = 0.5) {
        UpdateRow row;
        row.cluster = cluster;
        row.base_version = version;
        row.eval_samples = samples;
        row.eval_accuracy = accuracy;
        return row;
    }
};

// ---- coming and going

TEST_F(SiteBookTest, AHelloTellsTheStrategyWhatIsNew) {
    const auto first = sites_.hello(facts("a", 7), true);
    ASSERT_TRUE(first && std::holds_alternative<Joined>(*first));
    EXPECT_EQ(std::get<Joined>(*first).facts.samples, 7U);
    EXPECT_TRUE(sites_.at("a").connected);
    EXPECT_FALSE(sites_.at("a").joined) << "until it is noted";
    static_cast<void>(sites_.note(*first));
    EXPECT_TRUE(sites_.at("a").joined);
    EXPECT_FALSE(sites_.hello(facts("a", 7), true)) << "nothing is new";
    ClientFacts other = facts("a", 7);
    other.label_counts = {3, 4};
    const auto labels = sites_.hello(other, true);
    ASSERT_TRUE(labels && std::holds_alternative<Changed>(*labels));
    EXPECT_EQ(std::get<Changed>(*labels).facts.label_counts, other.label_counts);
    EXPECT_TRUE(sites_.hello(facts("a", 8), true));
}

TEST_F(SiteBookTest, LatencyIsWhatWasMeasuredHoweverItComesBack) {
    joins("a");
    static_cast<void>(sites_.note(*sites_.status("a", 2.5, true)));
    EXPECT_EQ(sites_.at("a").facts.latency_s, 2.5);
    EXPECT_TRUE(sites_.at("a").degraded);
    EXPECT_EQ(std::get<Changed>(*sites_.hello(facts("a", 5), true)).facts.latency_s, 2.5);
    leaves("a", 1);
    EXPECT_EQ(std::get<Joined>(*sites_.hello(facts("a"), true)).facts.latency_s, 2.5);
}

TEST_F(SiteBookTest, WhoHasNotJoinedHasNoStatusForTheStrategy) {
    EXPECT_FALSE(sites_.status("a", 2.5, true));
    EXPECT_TRUE(sites_.at("a").degraded);
    EXPECT_EQ(sites_.at("a").facts.latency_s, 0);
}

TEST_F(SiteBookTest, WhoIsHereAndWhoIsCountedOn) {
    EXPECT_FALSE(sites_.anyone_joined());
    for (const char* name : {"b", "a", "c"}) joins(name);
    EXPECT_EQ(sites_.connected(), 3U);
    EXPECT_TRUE(sites_.absent().empty());
    sites_.leave("c", 4);
    sites_.leave("b", 5);
    EXPECT_EQ(sites_.connected(), 1U);
    EXPECT_EQ(sites_.absent(), (Names{"b", "c"})) << "the strategy does not know yet";
    EXPECT_EQ(sites_.last_left_s(), 5);
    for (const char* name : {"a", "b", "c"}) static_cast<void>(sites_.note(Left{name}));
    EXPECT_TRUE(sites_.absent().empty());
    EXPECT_FALSE(sites_.anyone_joined());
}

TEST_F(SiteBookTest, WhoIsAwayForLongerThanItMayIsNamedInTheOrderOfTasks) {
    for (const char* name : {"a", "b", "c", "d", "e"}) joins(name);
    sites_.assign("a", 12, 0);
    sites_.assign("b", 11, 0);
    sites_.assign("c", 10, 0);
    sites_.assign("d", 9, 0);
    for (const char* name : {"a", "b"}) leaves(name, 100);
    leaves("e", 100);        // it has no task
    sites_.leave("d", 100);  // the strategy counts on it still
    EXPECT_TRUE(sites_.away_for(130, 30).empty()) << "at the limit";
    EXPECT_EQ(sites_.away_for(130.5, 30), (Names{"b", "a"}));
    EXPECT_TRUE(sites_.hello(facts("b"), true));  // back, and not joined yet
    EXPECT_EQ(sites_.away_for(130.5, 30), (Names{"a"}));
    EXPECT_EQ(sites_.note(Failed{.cluster = "a", .reason = "away"}), 12U);
    EXPECT_TRUE(sites_.away_for(1e9, 30).empty());
}

TEST_F(SiteBookTest, AbsencesBeginAnewWithTheServer) {
    joins("a");
    sites_.assign("a", 1, 0);
    leaves("a", 10);
    sites_.start_absences(1000);
    EXPECT_EQ(sites_.last_left_s(), 1000);
    EXPECT_TRUE(sites_.away_for(1030, 30).empty());
    EXPECT_EQ(sites_.away_for(1031, 30), (Names{"a"}));
}

// ---- tasks

TEST_F(SiteBookTest, AnUpdateOrAFailureEndsATask) {
    joins("a", 500);
    sites_.assign("a", 3, 2);
    EXPECT_EQ(sites_.at("a").task, 3U);
    EXPECT_EQ(sites_.at("a").group, 2);
    ClientFacts cut = facts("a", 70);
    cut.latency_s = 1.5;
    EXPECT_EQ(sites_.note(Admitted{.facts = cut, .sequence = 3, .base_version = 1, .staleness = 4}),
              3U);
    EXPECT_EQ(sites_.at("a").task, 0U);
    EXPECT_EQ(sites_.at("a").updates, 1U);
    EXPECT_EQ(sites_.at("a").staleness, 4U);
    EXPECT_EQ(sites_.at("a").facts.latency_s, 1.5);
    EXPECT_EQ(sites_.at("a").facts.samples, 500U)
        << "what one update counts for is not what it has";
    sites_.assign("a", 8, 0);
    EXPECT_EQ(sites_.note(Failed{.cluster = "a", .reason = "bad"}), 8U);
    EXPECT_EQ(sites_.note(Failed{.cluster = "a", .reason = "bad"}), 0U) << "it has none";
    EXPECT_EQ(sites_.at("a").updates, 1U);
    EXPECT_EQ(sites_.note(strategy_event::Tick{}), 0U);
}

TEST_F(SiteBookTest, ATaskStaysWhileItsClusterIsAway) {
    joins("a");
    sites_.assign("a", 3, 0);
    leaves("a", 1);
    joins("a");
    EXPECT_EQ(sites_.at("a").task, 3U);
}

TEST_F(SiteBookTest, TheDropOutGroupIsLeftByAMoveAlone) {
    joins("a");
    sites_.move("a", -1);
    sites_.assign("a", 1, 5);
    EXPECT_EQ(sites_.at("a").group, -1);
    sites_.move("a", 2);
    EXPECT_EQ(sites_.at("a").group, 2);
}

TEST_F(SiteBookTest, AnUnknownTaskIsNewsOnceInARow) {
    EXPECT_FALSE(sites_.is_news("a", 0)) << "no task has this number";
    EXPECT_TRUE(sites_.is_news("a", 7));
    EXPECT_FALSE(sites_.is_news("a", 7));
    EXPECT_TRUE(sites_.is_news("b", 7)) << "another cluster";
    EXPECT_TRUE(sites_.is_news("a", 8));
    EXPECT_TRUE(sites_.is_news("a", 7));
}

// ---- quarantine

TEST_F(SiteBookTest, QuarantineBeginsExactlyAtTheLimit) {
    EXPECT_FALSE(sites_.count_rejection("a", "first", 3));
    EXPECT_FALSE(sites_.count_rejection("a", "second", 3));
    EXPECT_FALSE(sites_.at("a").record.quarantined);
    EXPECT_TRUE(sites_.count_rejection("a", "third", 3));
    const SiteRow& record = sites_.at("a").record;
    EXPECT_TRUE(record.quarantined);
    EXPECT_EQ(record.cluster, "a");
    EXPECT_EQ(record.rejections, 3U);
    EXPECT_EQ(record.in_a_row, 3U);
    EXPECT_EQ(record.reason, "third");
    EXPECT_FALSE(sites_.count_rejection("a", "fourth", 3)) << "it is there already";
    EXPECT_EQ(record.rejections, 4U);
    EXPECT_FALSE(sites_.at("b").record.quarantined);
}

TEST_F(SiteBookTest, AtOneTheFirstIsEnoughAndAtZeroNoneIs) {
    EXPECT_TRUE(sites_.count_rejection("a", "bad", 1));
    for (int n = 0; n < 100; ++n) EXPECT_FALSE(sites_.count_rejection("b", "bad", 0));
    EXPECT_EQ(sites_.at("b").record.in_a_row, 100U);
    EXPECT_TRUE(sites_.count_rejection("b", "bad", 5)) << "a limit that a restart brings";
}

TEST_F(SiteBookTest, AGoodUpdateEndsTheRow) {
    EXPECT_FALSE(sites_.end_row("a")) << "there was none";
    EXPECT_FALSE(sites_.count_rejection("a", "bad", 2));
    EXPECT_TRUE(sites_.end_row("a"));
    EXPECT_EQ(sites_.at("a").record.in_a_row, 0U);
    EXPECT_EQ(sites_.at("a").record.rejections, 1U);
    EXPECT_FALSE(sites_.count_rejection("a", "bad", 2));
    EXPECT_TRUE(sites_.count_rejection("a", "bad", 2));
}

TEST_F(SiteBookTest, WhoIsInQuarantineJoinsOnlyOnceItIsAdmitted) {
    EXPECT_FALSE(sites_.admit("nobody"));
    EXPECT_TRUE(sites_.view().empty()) << "asking makes no cluster";
    joins("a", 10);
    EXPECT_FALSE(sites_.admit("a"));
    EXPECT_TRUE(sites_.count_rejection("a", "bad", 1));
    leaves("a", 1);
    EXPECT_FALSE(sites_.hello(facts("a", 20), true));
    EXPECT_TRUE(sites_.at("a").connected);
    EXPECT_TRUE(sites_.admit("a"));
    EXPECT_FALSE(sites_.admit("a")) << "once";
    EXPECT_EQ(sites_.at("a").record.in_a_row, 0U);
    EXPECT_EQ(sites_.at("a").record.rejections, 1U) << "that is not forgotten";
    EXPECT_EQ(sites_.at("a").facts.samples, 20U) << "what it has said meanwhile";
    EXPECT_TRUE(std::holds_alternative<Joined>(*sites_.hello(facts("a", 20), true)));
}

// ---- samples and tests

TEST_F(SiteBookTest, TheCapOnSamplesIsOfThoseWhoTakePart) {
    for (const char* name : {"a", "b", "c", "d"}) joins(name, 10);
    EXPECT_EQ(sites_.samples_most(2), UINT64_MAX) << "of four";
    joins("e", 1000);
    EXPECT_EQ(sites_.samples_most(2), 20U);
    EXPECT_EQ(sites_.samples_most(0), UINT64_MAX);
    sites_.leave("a", 1);
    EXPECT_EQ(sites_.samples_most(2), 20U) << "the strategy counts on it still";
    static_cast<void>(sites_.note(Left{"a"}));
    EXPECT_EQ(sites_.samples_most(2), UINT64_MAX);
}

TEST_F(SiteBookTest, ANewerTestTakesThePlaceOfAnOlderOne) {
    joins("a");
    joins("b");
    EXPECT_FALSE(sites_.take_tests({}));
    EXPECT_FALSE(sites_.take_tests({tested("a", 3, 0)})) << "it tested nothing";
    EXPECT_TRUE(sites_.take_tests({tested("a", 3, 40, 0.25), tested("b", 2, 0)}));
    EXPECT_FALSE(sites_.take_tests({tested("a", 2, 40, 0.75)})) << "older";
    EXPECT_EQ(sites_.at("a").tested.accuracy, 0.25);
    EXPECT_TRUE(sites_.take_tests({tested("a", 3, 50, 0.5)})) << "of the same version again";
    const std::vector<ClientTest> tests = sites_.newest_tests();
    ASSERT_EQ(tests.size(), 2U);
    EXPECT_EQ(tests[0].version, 3U);
    EXPECT_EQ(tests[0].samples, 50U);
    EXPECT_EQ(tests[0].accuracy, 0.5);
    EXPECT_EQ(tests[1].samples, 0U) << "b tests, and has not yet";
}

TEST_F(SiteBookTest, WhoTestsHasAVoiceWhileItTakesPart) {
    joins("a", 10, false);
    EXPECT_TRUE(sites_.newest_tests().empty());
    EXPECT_TRUE(sites_.take_tests({tested("a", 1, 5)}));
    EXPECT_EQ(sites_.newest_tests().size(), 1U) << "it did once";
    joins("b", 10, true);
    EXPECT_EQ(sites_.newest_tests().size(), 2U);
    leaves("b", 1);
    EXPECT_EQ(sites_.newest_tests().size(), 1U);
}

TEST_F(SiteBookTest, ThatNobodyTestsIsToldOnce) {
    joins("a", 10, true);
    EXPECT_FALSE(sites_.take_untested());
    leaves("a", 1);
    EXPECT_FALSE(sites_.take_untested()) << "it may come back";
    joins("a", 10, false);
    EXPECT_TRUE(sites_.take_untested());
    EXPECT_FALSE(sites_.take_untested());
}

// ---- what is seen and kept

TEST_F(SiteBookTest, TheViewHasEachUnderItsOwnName) {
    joins("b", 20);
    joins("a", 10);
    ClientFacts admitted = facts("a", 10);
    admitted.latency_s = 1.5;
    sites_.assign("a", 1, 0);
    static_cast<void>(
        sites_.note(Admitted{.facts = admitted, .sequence = 1, .base_version = 0, .staleness = 6}));
    sites_.assign("a", 9, 4);
    EXPECT_FALSE(sites_.count_rejection("a", "bad", 0));
    EXPECT_TRUE(sites_.count_rejection("a", "worse", 2));
    static_cast<void>(sites_.status("a", 0, true));
    leaves("b", 1);
    const std::vector<SiteView> view = sites_.view();
    ASSERT_EQ(view.size(), 2U);
    EXPECT_EQ(view[0].cluster, "a");
    EXPECT_TRUE(view[0].connected);
    EXPECT_EQ(view[0].group, 4);
    EXPECT_EQ(view[0].latency_s, 1.5);
    EXPECT_EQ(view[0].samples, 10U);
    EXPECT_EQ(view[0].task, 9U);
    EXPECT_EQ(view[0].staleness, 6U);
    EXPECT_EQ(view[0].updates, 1U);
    EXPECT_EQ(view[0].rejections, 2U);
    EXPECT_TRUE(view[0].quarantined);
    EXPECT_TRUE(view[0].degraded);
    EXPECT_EQ(view[0].reason, "worse");
    EXPECT_EQ(view[1].cluster, "b");
    EXPECT_FALSE(view[1].connected);
    EXPECT_EQ(view[1].samples, 20U);
}

TEST_F(SiteBookTest, ASnapshotBringsBackWhatTheJournalHasNot) {
    joins("a", 10);
    ClientFacts told = facts("b", 20);
    told.label_counts = {5, 6};
    static_cast<void>(sites_.note(*sites_.hello(told, false)));
    sites_.assign("b", 7, 3);
    EXPECT_TRUE(sites_.take_tests({tested("b", 4, 30, 0.75)}));
    EXPECT_TRUE(sites_.count_rejection("b", "bad", 1));
    static_cast<void>(sites_.status("b", 0, true));
    leaves("a", 5);
    Json snapshot;
    sites_.save(snapshot);
    const Json expected{
        {"facts",
         {{"cluster", "b"}, {"latency_s", 0.0}, {"samples", 20}, {"label_counts", {5, 6}}}},
        {"joined", true},
        {"task", 7},
        {"group", 3},
        {"staleness", 0},
        {"updates", 0},
        {"degraded", true},
        {"tests", false},
        {"tested", {{"version", 4}, {"samples", 30}, {"accuracy", 0.75}}}};
    ASSERT_EQ(snapshot.at("sites").size(), 2U);
    EXPECT_EQ(snapshot.at("sites").at(1), expected);

    SiteBook other;
    other.restore(snapshot);
    other.set_record(sites_.at("b").record);
    Json again;
    other.save(again);
    EXPECT_EQ(again, snapshot);
    EXPECT_FALSE(other.at("b").connected) << "it has yet to say Hello";
    EXPECT_TRUE(other.at("b").joined);
    EXPECT_TRUE(other.at("b").record.quarantined);
    EXPECT_EQ(other.absent(), (Names{"b"}));
    EXPECT_EQ(other.connected(), 0U);
}

TEST_F(SiteBookTest, ASnapshotThatLacksSomethingIsRefused) {
    joins("a");
    Json whole;
    sites_.save(whole);
    for (const auto& [key, value] : whole.at("sites").at(0).items()) {
        Json damaged = whole;
        damaged["sites"][0].erase(key);
        EXPECT_THROW(SiteBook().restore(damaged), Json::exception) << key;
    }
    EXPECT_THROW(SiteBook().restore(Json::object()), Json::exception);
    Json damaged = whole;
    damaged["sites"][0]["task"] = "seven";
    EXPECT_THROW(SiteBook().restore(damaged), Json::exception);
}

}  // namespace
}  // namespace ecopipe
