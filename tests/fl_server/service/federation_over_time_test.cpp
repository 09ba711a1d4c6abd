// What must hold of a federation while its server works, stops, is restored, and clusters come and
// go.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "core/strict_json.h"
#include "tests/fl_server/service/federation_run.h"

namespace ecopipe::test {
namespace {

class FederationOverTime : public FederationRun {
  protected:
    // Thrown away and opened again, as after a crash; clusters say Hello with what they have.
    void restart() {
        const auto reopened = open();
        ASSERT_TRUE(reopened) << reopened.error().message;
        turn([&] {
            for (const std::string& name : clusters_)
                ASSERT_TRUE(federation_->hello(
                    {name, 0, 100, {}}, tasks_.contains(name) ? tasks_.at(name).sequence : 0));
        });
    }
    void leaves(const std::string& name) {
        turn([&] { ASSERT_TRUE(federation_->left(name)); });
    }
    void comes(const std::string& name, std::uint64_t working_on = 0) {
        turn([&] { ASSERT_TRUE(federation_->hello({name, 0, 100, {}}, working_on)); });
    }
    bool keeps_model(std::uint64_t version) const {
        return std::filesystem::exists(options_.state_directory + "/models/" +
                                       std::to_string(version) + ".safetensors");
    }
    SiteView view_of(const std::string& name) const {
        for (const SiteView& site : federation_->view().sites)
            if (site.cluster == name) return site;
        return {};
    }
};

// The evaluation takes longer than a round may.
TEST_F(FederationOverTime, TheServersOwnWorkIsChargedToNobody) {
    options_.evaluate = [this](const std::string&) -> Result<Evaluation> {
        now_s_ += 8.5;
        return Evaluation{1, 0.5};
    };
    ASSERT_TRUE(open());
    all_say_hello();
    run_to_end();
    std::istringstream lines(rounds());
    for (std::string line; std::getline(lines, line);) {
        const auto json = parse_json(line, "rounds.jsonl");
        EXPECT_EQ(json->at("clusters").size(), 4U) << line;
        EXPECT_TRUE(json->at("rejected").empty()) << line;
        EXPECT_LT(json->at("wall_s").get<double>(), 2) << line;
    }
    for (const SiteView& site : federation_->view().sites) EXPECT_LT(site.latency_s, 2);
}

// However it was put there: our own backup, over the files of before or in their place, or a copy
// of the stopped server's directory.
TEST_F(FederationOverTime, ARestoredStateIsAnotherEpochAndItsClustersGoOn) {
    namespace fs = std::filesystem;
    enum class How { kBackup, kBackupInPlace, kCopy };
    for (const How how : {How::kBackup, How::kBackupInPlace, How::kCopy}) {
        fs::remove_all(directory_);
        tasks_.clear();
        verdicts_.clear();
        ASSERT_TRUE(open());
        all_say_hello();
        answer("a");
        const fs::path state = options_.state_directory;
        const fs::path saved = directory_ / "saved";
        if (how == How::kCopy) {
            federation_.reset();
            fs::copy(state, saved, fs::copy_options::recursive);
            restart();
        } else {
            ASSERT_TRUE(federation_->backup_to(saved));
        }
        const std::uint64_t epoch = federation_->epoch();
        restart();
        EXPECT_EQ(federation_->epoch(), epoch) << "a restart restores nothing";
        for (const char* name : {"b", "c", "d"}) answer(name);
        ASSERT_EQ(federation_->version(), 1U);
        const Task before = tasks_.at("a");  // of version 1, which the restored state lacks
        federation_.reset();
        if (how != How::kBackupInPlace) fs::remove_all(state);
        fs::copy(saved, state, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
        const auto reopened = open();
        ASSERT_TRUE(reopened) << reopened.error().message;
        EXPECT_NE(federation_->epoch(), epoch);
        EXPECT_EQ(federation_->version(), 0U);
        // What is of before is refused, and held against nobody.
        tasks_.clear();
        verdicts_.clear();
        all_say_hello();
        const std::string bytes = trained("a", 1);
        upload("a", announcement(before, bytes), bytes);
        ASSERT_EQ(verdicts_["a"].size(), 1U);
        EXPECT_FALSE(verdicts_["a"][0].accepted);
        EXPECT_NE(verdicts_["a"][0].reason.find("before the federation's state was restored"),
                  std::string::npos);
        EXPECT_EQ(view_of("a").rejections, 0U);
        run_to_end();
    }
}

// A buffered strategy asks before there is a new version: each of its tasks is another draw.
TEST_F(FederationOverTime, EachTaskOfOneVersionIsAnotherDraw) {
    clusters_ = {"a", "b"};
    strategy_ = "fedbuff";
    parameters_["min_clients"] = 2;
    parameters_["buffer"] = 6;
    options_.rounds = 2;
    ASSERT_TRUE(open());
    all_say_hello();
    std::map<std::string, std::uint32_t> repeats;
    for (int n = 0; n < 6; ++n) {
        const std::string cluster = n % 3 == 0 ? "b" : "a";
        const Task task = tasks_.at(cluster);
        EXPECT_EQ(task.base_version, 0U);
        EXPECT_EQ(task.repeat, repeats[cluster]++) << cluster;
        // A task that comes again, over a restart too, is the same one.
        tasks_.clear();
        restart();
        EXPECT_EQ(tasks_.at(cluster).sequence, task.sequence);
        EXPECT_EQ(tasks_.at(cluster).repeat, task.repeat);
        answer(cluster);
    }
    EXPECT_EQ(federation_->version(), 1U);
    for (const auto& [cluster, task] : tasks_)
        EXPECT_EQ(task.repeat, task.base_version == 1 ? 0U : repeats[cluster]) << cluster;
}

TEST_F(FederationOverTime, WhoIsAwayForLongLosesItsTaskAndItsVersion) {
    strategy_ = "fedasync";
    parameters_["min_clients"] = 1;
    options_.rounds = 0;
    options_.keep_models = 1;
    options_.limits.absence_s = 100;
    ASSERT_TRUE(open());
    all_say_hello();
    const Task departed = tasks_.at("c");
    leaves("c");
    leaves("d");
    tasks_.erase("c");
    tasks_.erase("d");
    for (int n = 0; n < 4; ++n) answer(n % 2 == 0 ? "a" : "b");
    EXPECT_TRUE(keeps_model(0));
    now_s_ += 50;
    comes("d", view_of("d").task);
    now_s_ += 60;
    turn();
    EXPECT_EQ(view_of("c").task, 0U);
    EXPECT_NE(view_of("d").task, 0U) << "it is here";
    tasks_.erase("d");
    leaves("d");
    now_s_ += 101;
    turn();
    answer("a");
    EXPECT_FALSE(keeps_model(0));
    restart();  // c and d come back with it
    const std::string bytes = trained("c", 0);
    upload("c", announcement(departed, bytes), bytes);
    ASSERT_EQ(verdicts_["c"].size(), 1U);
    EXPECT_EQ(verdicts_["c"][0].reason, "the cluster was away for 100 s");
    EXPECT_EQ(view_of("c").rejections, 0U);
    answer("c");
    EXPECT_TRUE(verdicts_["c"].back().accepted) << "its new task";
}

TEST_F(FederationOverTime, FinishEndsWhenAllHaveLeft) {
    options_.rounds = 0;
    ASSERT_TRUE(open());
    all_say_hello();
    for (const char* name : {"a", "b"}) answer(name);
    for (const std::string& name : clusters_) leaves(name);
    turn([&] { ASSERT_TRUE(federation_->finish()); });
    EXPECT_FALSE(federation_->finished()) << "the round's deadline comes";
    now_s_ += 6;
    turn();
    EXPECT_TRUE(federation_->finished());
    EXPECT_EQ(federation_->version(), 1U) << "with the two that were there";
    // And where no deadline makes a version of nothing.
    ASSERT_TRUE(federation_->end());
    tasks_.clear();
    restart();
    for (const std::string& name : clusters_) leaves(name);
    turn([&] { ASSERT_TRUE(federation_->finish()); });
    now_s_ += 50;
    turn();
    EXPECT_FALSE(federation_->finished()) << "somebody may come back";
    now_s_ += 10;
    turn();
    turn();
    EXPECT_TRUE(federation_->finished());
    EXPECT_EQ(federation_->version(), 1U);
}

TEST_F(FederationOverTime, PauseAndFinishHoldOverARestart) {
    options_.rounds = 0;
    ASSERT_TRUE(open());
    all_say_hello();
    turn([&] { ASSERT_TRUE(federation_->pause(true)); });
    restart();
    EXPECT_EQ(federation_->view().phase, "paused");
    tasks_.clear();
    all_say_hello();
    EXPECT_TRUE(tasks_.empty());
    turn([&] { ASSERT_TRUE(federation_->pause(false)); });
    EXPECT_EQ(tasks_.size(), 4U);
    restart();
    EXPECT_EQ(federation_->view().phase, "running");
    turn([&] { ASSERT_TRUE(federation_->finish()); });
    restart();
    EXPECT_EQ(federation_->view().phase, "finishing");
    run_to_end();
    EXPECT_EQ(federation_->version(), 1U);
    // It was told to end, and has: started again, it goes on.
    ASSERT_TRUE(federation_->end());
    tasks_.clear();
    restart();
    EXPECT_EQ(federation_->view().phase, "running");
}

TEST_F(FederationOverTime, RoundsAreMadeWholeAgainFromTheJournal) {
    options_.rounds = 4;
    ASSERT_TRUE(open());
    all_say_hello();
    run_to_end();
    const std::string expected = rounds();
    const std::string path = options_.state_directory + "/rounds.jsonl";
    const std::size_t second = expected.find('\n') + 1;
    for (const std::string& damaged :
         {expected.substr(0, expected.size() / 2), std::string(), expected + "{\"round\":9}\n",
          expected.substr(0, second) + "garbage\n" + expected.substr(second),
          expected.substr(0, second)}) {
        ASSERT_TRUE(write_file_atomically(path, damaged));
        ASSERT_TRUE(open());
        EXPECT_EQ(rounds(), expected) << damaged;
    }
    std::filesystem::remove(path);
    ASSERT_TRUE(open());
    EXPECT_EQ(rounds(), expected);
}

TEST_F(FederationOverTime, WhatClustersSentIsTheirOwnersAlone) {
    ASSERT_TRUE(open());
    all_say_hello();
    answer("a");
    ASSERT_TRUE(federation_->backup_to(directory_ / "backup"));
    for (const std::string& state : {options_.state_directory, (directory_ / "backup").string()})
        for (const char* name : {"spool", "models", "kept", "journal.sqlite"}) {
            struct stat facts{};
            ASSERT_EQ(::stat((state + "/" + name).c_str(), &facts), 0) << name;
            EXPECT_EQ(facts.st_mode & 077U, 0U) << state << "/" << name;
        }
}

}  // namespace
}  // namespace ecopipe::test
