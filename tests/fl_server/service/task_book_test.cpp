#include "fl_server/service/task_book.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

// A snapshot that has an entry of each of these, as SiteBook leaves it.
Json with_sites(std::initializer_list<const char*> clusters) {
    Json snapshot{{"sites", Json::array()}};
    for (const char* cluster : clusters)
        snapshot["sites"].push_back({{"facts", {{"cluster", cluster}}}});
    return snapshot;
}

TEST(TaskBook, NumbersCountFromOneAndAreNeverUsedAgain) {
    TaskBook tasks;
    EXPECT_TRUE(tasks.empty());
    EXPECT_EQ(tasks.open("a", 3, 7, 1.5), 1U);
    EXPECT_EQ(tasks.open("b", 0, 8, 2.5), 2U);
    tasks.close(2);
    EXPECT_EQ(tasks.open("b", 0, 8, 3.5), 3U);
    EXPECT_EQ(tasks.all().size(), 2U);
    const OpenTask* first = tasks.find(1);
    ASSERT_NE(first, nullptr);
    EXPECT_EQ(first->cluster, "a");
    EXPECT_EQ(first->group, 3U);
    EXPECT_EQ(first->base_version, 7U);
    EXPECT_EQ(first->assigned_s, 1.5);
    tasks.close(0);
    tasks.close(2);
    tasks.close(99);
    EXPECT_EQ(tasks.all().size(), 2U);
    tasks.close(1);
    tasks.close(3);
    EXPECT_TRUE(tasks.empty());
}

TEST(TaskBook, ATaskIsFoundForItsOwnClusterAlone) {
    TaskBook tasks;
    const std::uint64_t number = tasks.open("a", 0, 0, 0);
    EXPECT_EQ(tasks.find_of("a", number), tasks.find(number));
    EXPECT_EQ(tasks.find_of("b", number), nullptr);
    EXPECT_EQ(tasks.find_of("a", number + 1), nullptr);
    EXPECT_EQ(tasks.find(0), nullptr);
    tasks.close(number);
    EXPECT_EQ(tasks.find_of("a", number), nullptr);
}

TEST(TaskBook, EachTaskOfAVersionIsAnotherRepeatOfItsCluster) {
    TaskBook tasks;
    const auto repeat = [&](const char* cluster, std::uint64_t version) {
        const std::uint64_t number = tasks.open(cluster, 0, version, 0);
        const std::uint32_t of = tasks.find(number)->repeat;
        tasks.close(number);
        return of;
    };
    EXPECT_EQ(repeat("a", 0), 0U) << "the first task, though no version is 0 before it";
    EXPECT_EQ(repeat("a", 0), 1U);
    EXPECT_EQ(repeat("b", 0), 0U) << "its own";
    EXPECT_EQ(repeat("a", 0), 2U);
    EXPECT_EQ(repeat("a", 1), 0U);
    EXPECT_EQ(repeat("a", 1), 1U);
    EXPECT_EQ(repeat("b", 1), 0U);
}

TEST(TaskBook, HashesStayOfVersionsThatAreNeeded) {
    TaskBook tasks;
    static_cast<void>(tasks.open("a", 0, 2, 0));
    static_cast<void>(tasks.open("b", 0, 4, 0));
    static_cast<void>(tasks.open("c", 0, 2, 0));
    EXPECT_EQ(tasks.base_versions(), (std::set<std::uint64_t>{2, 4}));
    for (std::uint64_t version = 0; version < 6; ++version)
        tasks.set_sha256(version, std::to_string(version));
    tasks.set_sha256(4, "another");
    tasks.forget_sha256_but({2, 4, 9});
    EXPECT_EQ(tasks.sha256_of(2), "2");
    EXPECT_EQ(tasks.sha256_of(4), "another");
    EXPECT_THROW(static_cast<void>(tasks.sha256_of(5)), std::out_of_range);
}

TEST(TaskBook, ASnapshotBringsBackTasksNumbersAndRepeats) {
    TaskBook tasks;
    static_cast<void>(tasks.open("a", 1, 5, 0.5));
    tasks.close(1);
    static_cast<void>(tasks.open("a", 1, 5, 1.5));
    static_cast<void>(tasks.open("b", 2, 4, 2.5));
    Json snapshot = with_sites({"a", "b", "new"});
    tasks.save(snapshot);
    const Json task{{"task", 2},         {"cluster", "a"},    {"group", 1},
                    {"base_version", 5}, {"assigned_s", 1.5}, {"repeat", 1}};
    EXPECT_EQ(snapshot.at("tasks").at(0), task);
    EXPECT_EQ(snapshot.at("next_task"), 4);
    const Json& sites = snapshot.at("sites");
    EXPECT_EQ(
        sites.at(0),
        Json({{"facts", {{"cluster", "a"}}}, {"asked", true}, {"last_base", 5}, {"repeat", 1}}));
    EXPECT_EQ(
        sites.at(2),
        Json({{"facts", {{"cluster", "new"}}}, {"asked", false}, {"last_base", 0}, {"repeat", 0}}));

    TaskBook other;
    other.restore(snapshot);
    Json again = with_sites({"a", "b", "new"});
    other.save(again);
    EXPECT_EQ(again, snapshot);
    EXPECT_EQ(other.find(2)->repeat, 1U);
    EXPECT_EQ(other.open("a", 1, 5, 0), 4U);
    EXPECT_EQ(other.find(4)->repeat, 2U);
    static_cast<void>(other.open("new", 0, 0, 0));
    EXPECT_EQ(other.find(5)->repeat, 0U) << "it was never asked";
}

TEST(TaskBook, SnapshotsOfBeforeRepeatsAreTaken) {
    TaskBook tasks;
    Json snapshot = with_sites({"a"});
    snapshot["next_task"] = 8;
    snapshot["tasks"] = {
        {{"task", 7}, {"cluster", "a"}, {"group", 0}, {"base_version", 3}, {"assigned_s", 1.0}}};
    tasks.restore(snapshot);
    EXPECT_EQ(tasks.find(7)->repeat, 0U);
    tasks.close(7);
    EXPECT_EQ(tasks.find(tasks.open("a", 0, 3, 0))->repeat, 0U);
}

TEST(TaskBook, ASnapshotThatLacksSomethingIsRefused) {
    Json whole = with_sites({"a"});
    TaskBook tasks;
    static_cast<void>(tasks.open("a", 0, 0, 0));
    tasks.save(whole);
    for (const char* key : {"next_task", "tasks", "sites"}) {
        Json damaged = whole;
        damaged.erase(key);
        EXPECT_THROW(TaskBook().restore(damaged), Json::exception) << key;
    }
    Json damaged = whole;
    damaged["tasks"][0].erase("base_version");
    EXPECT_THROW(TaskBook().restore(damaged), Json::exception);
    damaged = whole;
    damaged["tasks"][0]["task"] = "seven";
    EXPECT_THROW(TaskBook().restore(damaged), Json::exception);
}

}  // namespace
}  // namespace ecopipe
