// What a federation remembers: ends, replays, backups, restarts.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "core/sha256.h"
#include "core/strict_json.h"
#include "fl_server/numbers/samples_cap.h"
#include "fl_server/service/federation.h"
#include "fl_server/service/replay.h"
#include "fl_server/service/server_config.h"
#include "fl_server/strategies/registry.h"
#include "tests/fl_server/service/federation_run.h"
#include "tests/fl_server/service/toy_federation.h"

namespace ecopipe::test {
namespace {

namespace fs = std::filesystem;

TEST_F(FederationRun, WithoutANumberOfRoundsItGoesOnUntilToldToFinish) {
    options_.rounds = 0;
    ASSERT_TRUE(open());
    all_say_hello();
    for (int i = 0; i < 7 * 4; ++i) answer(tasks_.begin()->first);
    EXPECT_EQ(federation_->version(), 7U);
    EXPECT_FALSE(federation_->finished());
    answer(tasks_.begin()->first);
    turn([&] { ASSERT_TRUE(federation_->finish()); });
    EXPECT_FALSE(federation_->finished());  // the round at hand is open
    run_to_end();
    EXPECT_EQ(federation_->version(), 8U);
}

TEST_F(FederationRun, ReplayReproducesEveryHashOfAnAsynchronousRun) {
    for (const char* name : {"fedasync", "fedbuff", "fedat", "fedadam", "eco-fl"}) {
        SCOPED_TRACE(name);
        fs::remove_all(directory_);
        tasks_.clear();
        strategy_ = name;
        options_.rounds = 25;
        options_.keep_updates = true;
        ASSERT_TRUE(open());
        all_say_hello();
        Rng rng(9);
        for (int i = 0; i < 3000 && !federation_->finished(); ++i) {
            if (i % 7 == 3) {
                const auto reopened = open();
                ASSERT_TRUE(reopened) << reopened.error().message;
                turn([&] {
                    for (const std::string& n : clusters_)
                        ASSERT_TRUE(federation_->hello(
                            {n, 0, 100, {}}, tasks_.contains(n) ? tasks_.at(n).sequence : 0));
                });
            }
            turn();
            if (tasks_.empty()) continue;
            auto chosen = tasks_.begin();
            std::advance(chosen, static_cast<std::ptrdiff_t>(rng.below(tasks_.size())));
            answer(chosen->first);
        }
        ASSERT_TRUE(federation_->finished());
        const auto outcome = replay_journal(options_.state_directory, directory_ / "replay");
        ASSERT_TRUE(outcome) << outcome.error().message;
        EXPECT_EQ(outcome->versions, 25U);
        EXPECT_EQ(outcome->different, 0U);
        EXPECT_GE(outcome->updates, 20U);
    }
}

TEST_F(FederationRun, WhatAStrategyServesIsTestedAndPublishedInPlaceOfTheGlobalModel) {
    strategy_ = "eco-fl";
    options_.rounds = 6;
    std::vector<std::string> tested;
    options_.evaluate = [&](const std::string& flat) -> Result<Evaluation> {
        tested.push_back(flat);
        return Evaluation{1.0, tested.size() == 4 ? 0.9 : 0.1};
    };
    const auto published = [&](const char* name) {
        const std::string file =
            read_file(options_.state_directory + "/" + name + ".safetensors", 1U << 30U).value();
        return file.substr(file.size() - kFederationElements * sizeof(float));
    };
    ASSERT_TRUE(open());
    all_say_hello();
    run_to_end();
    ASSERT_GE(tested.size(), 6U);
    EXPECT_NE(tested.back(), *federation_->global());
    EXPECT_EQ(published("model"), tested.back());
    EXPECT_EQ(published("best"), tested[3]);
    fs::remove(options_.state_directory + "/model.safetensors");
    ASSERT_TRUE(open());
    EXPECT_EQ(published("model"), tested.back());
}

TEST_F(FederationRun, AThousandRoundsDoNotFillTheDisk) {
    options_.rounds = 1000;
    options_.keep_models = 2;
    clusters_ = {"a", "b"};
    parameters_["min_clients"] = 2;
    ASSERT_TRUE(open());
    all_say_hello();
    const auto used = [&](const char* part) {
        std::uintmax_t bytes = 0;
        for (const auto& entry : fs::directory_iterator(fs::path(options_.state_directory) / part))
            if (entry.is_regular_file()) bytes += entry.file_size();
        return bytes;
    };
    std::uintmax_t journal_at_500 = 0;
    for (int i = 0; i < 10000 && !federation_->finished(); ++i) {
        if (tasks_.empty())
            turn();
        else
            answer(tasks_.begin()->first);
        if (federation_->version() == 500)
            journal_at_500 = fs::file_size(options_.state_directory + "/journal.sqlite");
    }
    ASSERT_TRUE(federation_->finished());
    const std::vector<RoundView> recent = federation_->view().recent;
    ASSERT_EQ(recent.size(), 100U);
    EXPECT_EQ(recent.front().round, 901U);
    EXPECT_EQ(recent.back().round, 1000U);
    const auto model = static_cast<std::uintmax_t>(kFederationElements) * 4;
    EXPECT_LE(used("models"), 4 * (model + 1000));
    EXPECT_EQ(used("spool"), 0U);
    const auto journal = fs::file_size(options_.state_directory + "/journal.sqlite");
    // Metadata stays: some hundred bytes an update and a version.
    EXPECT_LT(journal - journal_at_500, 500U * 2500U);
    EXPECT_LT(journal, 1000U * 2500U + (1U << 20U));
}

TEST_F(FederationRun, ABackupGoesOnAsTheOriginal) {
    double accuracy = 0.9;  // the first version is the best
    options_.evaluate = [&](const std::string&) -> Result<Evaluation> {
        return Evaluation{1, std::exchange(accuracy, 0.1)};
    };
    ASSERT_TRUE(open());
    ASSERT_TRUE(federation_->backup_to(directory_ / "empty"));  // there is no best one yet
    all_say_hello();
    for (const char* name : {"a", "b", "c", "d"}) answer(name);
    ASSERT_EQ(federation_->version(), 1U);
    const auto best = [&] {
        return read_file(options_.state_directory + "/best.safetensors", 1U << 30U).value_or("");
    };
    const std::string expected_best = best();
    ASSERT_FALSE(expected_best.empty());
    answer("a");
    answer("b");
    ASSERT_TRUE(federation_->backup_to(directory_ / "backup"));
    EXPECT_FALSE(federation_->backup_to(directory_ / "backup"));  // not empty
    run_to_end();
    const std::string expected = *federation_->global();
    options_.state_directory = directory_ / "backup";
    const auto restored = open();
    ASSERT_TRUE(restored) << restored.error().message;
    all_say_hello();
    EXPECT_EQ(tasks_.size(), 2U) << "c and d have theirs";
    run_to_end();
    EXPECT_TRUE(*federation_->global() == expected);
    EXPECT_EQ(federation_->view().best_version, 1U);
    EXPECT_TRUE(best() == expected_best);
}

TEST_F(FederationRun, ARestartKnowsWhichModelWasTheBest) {
    double accuracy = 0.9;
    options_.evaluate = [&](const std::string&) -> Result<Evaluation> {
        return Evaluation{1, std::exchange(accuracy, 0.1)};
    };
    ASSERT_TRUE(open());
    all_say_hello();
    for (const char* name : {"a", "b", "c", "d"}) answer(name);
    ASSERT_EQ(federation_->version(), 1U);
    ASSERT_TRUE(open());
    EXPECT_EQ(federation_->view().best_version, 1U);
    all_say_hello();
    run_to_end();
    EXPECT_EQ(federation_->view().best_version, 1U);
    EXPECT_EQ(federation_->view().best_score, 0.9);
}

TEST_F(FederationRun, StatesOfOthersAndNewerJournalsAreRefused) {
    ASSERT_TRUE(open());
    options_.identity["norm_clip"] = "5";
    const auto other = open();
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, ExitCode::kUsage);
    EXPECT_NE(other.error().message.find("norm_clip is 100, found 5"), std::string::npos);
    // By the name of whatever differs, the robust rule too.
    options_.identity["norm_clip"] = "100";
    fs::remove_all(directory_);
    StrategySettings settings = default_settings("fedavg").value();
    const auto open_with = [&](RobustSettings robust) {
        settings.robust = robust;
        options_.identity = identity_of(settings, options_.limits).value();
        const auto opened = open();
        return opened ? std::string() : opened.error().message;
    };
    RobustSettings robust;
    EXPECT_EQ(open_with(robust), "");
    robust.rule = Combine::Rule::kCoordinateMedian;
    EXPECT_NE(open_with(robust).find("its robust is none, found median (trim 0.2, "),
              std::string::npos);
    fs::remove_all(directory_);
    EXPECT_EQ(open_with(robust), "");
    robust.keep = 7;
    EXPECT_NE(open_with(robust).find("keep 0), found median (trim 0.2, byzantine 1, keep 7)"),
              std::string::npos);
    robust.keep = 0;
    EXPECT_EQ(open_with(robust), "");
    {
        Database database = Database::open(options_.state_directory + "/journal.sqlite").value();
        ASSERT_TRUE(database.execute("PRAGMA user_version = 99"));
    }
    const auto newer = open();
    ASSERT_FALSE(newer);
    EXPECT_EQ(newer.error().code, ExitCode::kMismatch);
}

// The clusters come back after a restart, each with its task.
TEST_F(FederationRun, ADeadlineThatARestartChangesHoldsForTheRoundAtHand) {
    options_.rounds = 1;
    parameters_["deadline_s"] = 1000.0;
    ASSERT_TRUE(open());
    all_say_hello();
    for (const char* name : {"a", "b", "c"}) answer(name);
    turn();
    EXPECT_EQ(federation_->version(), 0U);
    parameters_["deadline_s"] = 0.2;
    const auto reopened = open();
    ASSERT_TRUE(reopened) << reopened.error().message;
    turn();
    EXPECT_EQ(federation_->version(), 1U);
    EXPECT_EQ(parse_json(rounds(), "rounds.jsonl")->at("clusters"), Json::array({"a", "b", "c"}));
}

TEST_F(FederationRun, WhatCameBeforeARestartIsToldToTheSettingsOfBefore) {
    for (const char* name : {"fedavg", "fedasync", "tifl"}) {
        SCOPED_TRACE(name);
        fs::remove_all(directory_);
        tasks_.clear();
        strategy_ = name;
        options_.rounds = 0;
        parameters_["min_clients"] = 4;
        ASSERT_TRUE(open());
        all_say_hello();
        ASSERT_EQ(tasks_.size(), 4U);
        const auto open_tasks = [&] {
            std::map<std::string, std::uint64_t> open;
            for (const SiteView& site : federation_->view().sites) open[site.cluster] = site.task;
            return open;
        };
        const auto before = open_tasks();
        parameters_["min_clients"] = 100;
        for (int time = 0; time < 2; ++time) {  // the second with nothing to change any more
            const auto reopened = open();
            ASSERT_TRUE(reopened) << reopened.error().message;
            EXPECT_EQ(open_tasks(), before);
        }
        const auto held = tasks_;
        tasks_.clear();
        turn([&] {
            for (const std::string& one : clusters_)
                ASSERT_TRUE(federation_->hello({one, 0, 100, {}}, held.at(one).sequence));
        });
        tasks_ = held;
        for (const std::string& one : clusters_) answer(one);
        turn();
        EXPECT_GE(federation_->version(), 1U);
        EXPECT_TRUE(tasks_.empty()) << "a round starts with 4 of 100";
    }
}

TEST_F(FederationRun, SettingsInTheJournalThatAreNoneAreRefused) {
    ASSERT_TRUE(open());
    {
        Database database = Database::open(options_.state_directory + "/journal.sqlite").value();
        ASSERT_TRUE(database.execute(
            R"(UPDATE meta SET value = '{"min_clients": "many"}' WHERE key = 'changeable')"));
    }
    const auto reopened = open();
    ASSERT_FALSE(reopened);
    EXPECT_EQ(reopened.error().code, ExitCode::kBadFile);
    EXPECT_NE(reopened.error().message.find("min_clients cannot be \"many\""), std::string::npos)
        << reopened.error().message;
}

TEST_F(FederationRun, PausedItGivesNoTasksAndItsDeadlineWaits) {
    options_.rounds = 1;
    ASSERT_TRUE(open());
    turn([&] { ASSERT_TRUE(federation_->pause(true)); });
    all_say_hello();
    EXPECT_TRUE(tasks_.empty());
    now_s_ += 1000;
    turn();
    EXPECT_EQ(federation_->version(), 0U);
    turn([&] { ASSERT_TRUE(federation_->pause(false)); });
    EXPECT_EQ(tasks_.size(), 4U);
    run_to_end();
}

}  // namespace
}  // namespace ecopipe::test
