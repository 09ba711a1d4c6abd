// Which models a federation keeps, and what a full disk costs.
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

// A thousand clusters would be a thousand open files.
TEST_F(FederationRun, UpdatesAreClosedOnceTheyAreFoldedUnlessARobustRuleNeedsThem) {
    const auto open_updates = [&](bool keep_sources) {
        options_.keep_sources = keep_sources;
        fs::remove_all(directory_);
        tasks_.clear();
        EXPECT_TRUE(open());
        all_say_hello();
        for (const char* name : {"a", "b", "c"}) answer(name);
        std::size_t count = 0;
        for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
            std::error_code gone;  // the iterator's own descriptor
            const std::string target = fs::read_symlink(entry.path(), gone).string();
            if (target.starts_with(options_.state_directory + "/spool/")) ++count;
        }
        return count;
    };
    EXPECT_EQ(open_updates(true), 3U);
    EXPECT_EQ(open_updates(false), 0U);
    answer("d");
    EXPECT_EQ(federation_->version(), 1U);
}

TEST_F(FederationRun, ADiskWithoutRoomCostsNoUpdate) {
    options_.rounds = 1;
    ASSERT_TRUE(open());
    all_say_hello();
    run_to_end();
    const std::string expected = *federation_->global();
    fs::remove_all(directory_);
    tasks_.clear();
    verdicts_.clear();
    ASSERT_TRUE(open());
    all_say_hello();
    answer("a");
    const Task task = tasks_.at("b");
    const std::string bytes = trained("b", 0);
    const fs::path file =
        fs::path(options_.state_directory) / "spool" / (std::to_string(task.sequence) + ".0");
    fs::create_symlink("/dev/full", file);
    turn([&] {
        const auto announced = federation_->announce("b", announcement(task, bytes));
        ASSERT_TRUE(announced && *announced);
        const auto taken = federation_->chunk("b", {task.sequence, 0, 0},
                                              std::as_bytes(std::span(bytes)).first(40000));
        ASSERT_TRUE(taken) << taken.error().message;
        EXPECT_TRUE(taken->no_room);
    });
    EXPECT_FALSE(fs::is_symlink(file));  // no half of it stays
    EXPECT_TRUE(verdicts_["b"].empty());
    EXPECT_TRUE(verdicts_["a"][0].accepted);
    run_to_end();  // b announces again
    EXPECT_TRUE(*federation_->global() == expected);
    EXPECT_EQ(parse_json(rounds(), "rounds.jsonl")->at("rejected").size(), 0U);
}

TEST_F(FederationRun, ALowDiskCountsWhatIsStillToCome) {
    ASSERT_TRUE(open());
    all_say_hello();
    EXPECT_FALSE(federation_->disk_is_low());
    options_.limits.free_space_mib = std::uint64_t{1} << 40;
    ASSERT_TRUE(open());
    EXPECT_TRUE(federation_->disk_is_low());
    EXPECT_EQ(federation_->view().phase, "disk full");
}

TEST_F(FederationRun, TheBestModelByTheServersOwnDataStays) {
    std::vector<std::string> models;
    const std::vector<double> accuracies{0.5, 0.75, 0.25};
    options_.evaluate = [&](const std::string& flat) -> Result<Evaluation> {
        models.push_back(flat);
        return Evaluation{1, accuracies.at(models.size() - 1)};
    };
    ASSERT_TRUE(open());
    all_say_hello();
    run_to_end();
    ASSERT_EQ(models.size(), 3U);
    const std::string best =
        read_file(options_.state_directory + "/best.safetensors", 1U << 30U).value();
    EXPECT_TRUE(best.ends_with(models[1]));
    EXPECT_EQ(federation_->view().best_version, 2U);
    EXPECT_EQ(federation_->view().best_score, 0.75);
    EXPECT_NE(rounds().find("\"accuracy\":0.75"), std::string::npos) << rounds();
    const std::string last = rounds().substr(rounds().rfind("{\"round\""));
    EXPECT_EQ(parse_json(last, "rounds.jsonl")->at("best"), 2) << last;
}

// Clusters test the version that they receive: a round's line tells of the version before it.
TEST_F(FederationRun, TheBestModelByTheClustersDataStays) {
    clusters_ = {"a", "b"};
    parameters_["min_clients"] = 2;
    ASSERT_TRUE(open());
    all_say_hello();
    std::vector<std::string> models;
    while (!federation_->finished()) {
        models.push_back(*federation_->global());
        const double accuracy = models.size() == 2 ? 0.5 : 0.25;
        for (const std::string name : {"a", "b"}) {
            const Task task = tasks_.at(name);
            tasks_.erase(name);
            const std::string bytes = trained(name, task.base_version);
            UpdateSlice slice = announcement(task, bytes);
            slice.eval_samples = name == "a" ? 30 : 10;
            slice.eval_accuracy = name == "a" ? accuracy : 1;
            slice.eval_loss = 2;
            upload(name, slice, bytes);
        }
    }
    const std::string best =
        read_file(options_.state_directory + "/best.safetensors", 1U << 30U).value();
    EXPECT_TRUE(best.ends_with(models[1]));
    EXPECT_EQ(federation_->view().best_version, 1U);
    const std::string text = rounds();
    const auto first = parse_json(text.substr(0, text.find('\n')), "rounds.jsonl");
    EXPECT_EQ(first->at("client_accuracy"), (30 * 0.25 + 10) / 40);
    EXPECT_EQ(first->at("client_loss"), 2);
    EXPECT_EQ(first->at("clients").at("b").at("accuracy"), 1);
    EXPECT_EQ(first->at("clients").at("a").at("version"), 0);
}

// Each version goes to one cluster or two, and the sites' data are not equally hard.
TEST_F(FederationRun, UnderAnAsynchronousStrategyTheBestModelIsNotOneClustersWord) {
    strategy_ = "fedasync";
    options_.rounds = 0;
    clusters_ = {"easy", "hard", "middle"};
    parameters_["min_clients"] = 3;
    ASSERT_TRUE(open());
    all_say_hello();
    const auto best = [&] {
        return read_file(options_.state_directory + "/best.safetensors", 1U << 30U).value_or("");
    };
    const auto test = [&](const std::string& name, double accuracy) {
        const Task task = tasks_.at(name);
        tasks_.erase(name);
        const std::string bytes = trained(name, task.base_version);
        UpdateSlice slice = announcement(task, bytes);
        slice.eval_samples = 10;
        slice.eval_accuracy = accuracy;
        upload(name, slice, bytes);
        return task.base_version;
    };
    test("easy", 0.99);
    EXPECT_TRUE(best().empty()) << "one of three";
    EXPECT_EQ(federation_->view().best_score, -1);
    test("middle", 0.3);
    EXPECT_DOUBLE_EQ(federation_->view().best_score, (0.99 + 0.3) / 2);
    test("hard", 0.1);
    const std::uint64_t second = test("middle", 0.9);
    EXPECT_DOUBLE_EQ(federation_->view().best_score, (0.99 + 0.1 + 0.9) / 3);
    EXPECT_EQ(federation_->view().best_version, second);
    const std::string kept = best();
    EXPECT_FALSE(kept.empty());
    test("easy", 1);  // the highest that any has said, and no better in sum
    const auto reopened = open();
    ASSERT_TRUE(reopened) << reopened.error().message;
    turn([&] {
        for (const std::string& name : clusters_)
            ASSERT_TRUE(federation_->hello({name, 0, 100, {}},
                                           tasks_.contains(name) ? tasks_.at(name).sequence : 0));
    });
    test("hard", 0.05);
    EXPECT_DOUBLE_EQ(federation_->view().best_score, (1 + 0.1 + 0.9) / 3);
    test("middle", 0.5);
    EXPECT_DOUBLE_EQ(federation_->view().best_score, (1 + 0.1 + 0.9) / 3) << "a restart forgot";
    EXPECT_EQ(federation_->view().best_version, second) << "still the newest that was tested";
    EXPECT_TRUE(best() == kept);
    EXPECT_NE(rounds().find("\"best\":"), std::string::npos) << rounds();
}

TEST_F(FederationRun, WhoDoesNotTestIsNotWaitedForAndNobodyMeansNoBest) {
    clusters_ = {"a", "b", "c"};
    parameters_["min_clients"] = 3;
    options_.rounds = 1;
    for (const bool any : {true, false}) {
        SCOPED_TRACE(any);
        fs::remove_all(directory_);
        tasks_.clear();
        ASSERT_TRUE(open());
        turn([&] {
            for (const std::string& name : clusters_)
                ASSERT_TRUE(federation_->hello({name, 0, 100, {}}, 0, any && name == "a"));
        });
        for (const std::string& name : clusters_) {
            const Task task = tasks_.at(name);
            tasks_.erase(name);
            const std::string bytes = trained(name, 0);
            UpdateSlice slice = announcement(task, bytes);
            if (any && name == "a") {
                slice.eval_samples = 10;
                slice.eval_accuracy = 0.25;
            }
            upload(name, slice, bytes);
        }
        ASSERT_TRUE(federation_->finished());
        EXPECT_EQ(federation_->view().best_score, any ? 0.25 : -1);
        EXPECT_EQ(fs::exists(options_.state_directory + "/best.safetensors"), any);
        EXPECT_EQ(parse_json(rounds(), "rounds.jsonl")->contains("client_accuracy"), any);
    }
}

// The server's own data measure something else than the clusters' did.
TEST_F(FederationRun, AnotherMeasureChoosesTheBestAnew) {
    options_.rounds = 2;
    options_.evaluate = [](const std::string&) -> Result<Evaluation> { return Evaluation{1, 0.9}; };
    ASSERT_TRUE(open());
    all_say_hello();
    for (const char* name : {"a", "b", "c", "d"}) answer(name);
    EXPECT_EQ(federation_->view().best_score, 0.9);
    options_.evaluate = {};
    ASSERT_TRUE(open());
    EXPECT_EQ(federation_->view().best_score, -1);
}

TEST_F(FederationRun, WhatLabelsStandForOutlivesARestartAndMayNotChange) {
    const auto list = [](const std::vector<std::string>& names) {
        return ClassNames::of(names).value();
    };
    ASSERT_TRUE(open());
    EXPECT_FALSE(federation_->classes().known());
    turn([&] { ASSERT_TRUE(federation_->adopt_classes(list({"ant", "bee"}))); });
    for (const bool told : {false, true}) {
        options_.classes = told ? list({"ant", "bee"}) : ClassNames();
        const auto reopened = open();
        ASSERT_TRUE(reopened) << reopened.error().message;
        EXPECT_EQ(federation_->classes().names, (std::vector<std::string>{"ant", "bee"}));
    }
    options_.classes = list({"bee", "ant"});
    const auto other = open();
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, ExitCode::kUsage);
    EXPECT_NE(other.error().message.find("its classes are ant, bee, found bee, ant"),
              std::string::npos)
        << other.error().message;
    // What a first site kept to itself may be told later.
    fs::remove_all(directory_);
    options_.classes = {};
    ASSERT_TRUE(open());
    turn([&] { ASSERT_TRUE(federation_->adopt_classes({{}, classes_hash({"ant", "bee"})})); });
    options_.classes = list({"ant", "bee"});
    ASSERT_TRUE(open());
    options_.classes = {};
    ASSERT_TRUE(open());
    EXPECT_EQ(federation_->classes().names.size(), 2U);
}

}  // namespace
}  // namespace ecopipe::test
