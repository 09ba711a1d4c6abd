// A journal that is damaged, or was made to harm, is an error with a line; never a crash.
#include "fl_server/state/journal.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "fl_server/strategies/decision_json.h"

namespace ecopipe::test {
namespace {

class JournalFile : public ::testing::Test {
  protected:
    void SetUp() override { std::filesystem::create_directories(directory_); }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    // A journal to which `sql` was done from outside.
    Journal tampered(const std::string& sql) {
        EXPECT_TRUE(Journal::open(path_));
        EXPECT_TRUE(Database::open(path_).value().execute(sql));
        return Journal::open(path_).value();
    }

    std::filesystem::path directory_ =
        std::filesystem::temp_directory_path() / ("ecopipe_journal_" + std::to_string(::getpid()));
    std::string path_ = directory_ / "journal.sqlite";
};

TEST_F(JournalFile, ATableThatIsMissingIsAnErrorAtItsUse) {
    Journal journal = tampered("DROP TABLE folds");
    for (const Error& error :
         {journal.last_fold().error(), journal.folds(0, 1).error(),
          journal.add_fold(1, "a", 0, 1).error(), journal.finished_updates().error()}) {
        EXPECT_EQ(error.code, ExitCode::kBadFile);
        EXPECT_TRUE(error.message.starts_with("journal: no such table: ")) << error.message;
    }
    EXPECT_TRUE(journal.versions());
}

TEST_F(JournalFile, ATriggerOfTheFileNeverRuns) {
    Journal journal = tampered(
        "CREATE TRIGGER harm AFTER INSERT ON meta BEGIN DELETE FROM meta WHERE key = 'a'; END");
    ASSERT_TRUE(journal.set_meta("a", "1"));
    ASSERT_TRUE(journal.set_meta("b", "2"));
    EXPECT_EQ(journal.meta("a").value(), "1");
}

TEST_F(JournalFile, RowsThatHoldNonsenseAreErrors) {
    Journal journal = tampered(
        "INSERT INTO versions VALUES(0, 0, '', 'not json', 0, ''); INSERT INTO events VALUES(1, 0, "
        "'[')");
    EXPECT_EQ(journal.versions().error().code, ExitCode::kBadFile);
    EXPECT_EQ(journal.events().error().code, ExitCode::kBadFile);
}

TEST(DecisionJson, RefusesWhatIsNoRecipe) {
    const Recipe recipe{{{1, {Combine::Rule::kTrimmedMean, 0, 0.2, 0, 0}}},
                        {},
                        {{Term::Source::kGlobal, 0, 0, "", 1}},
                        {}};
    const Json good = recipe_json(recipe);
    EXPECT_EQ(recipe_json(recipe_from(good).value()), good);
    Json rule = good;
    rule["close"][0]["rule"] = 4;
    EXPECT_EQ(recipe_from(rule).error().code, ExitCode::kBadFile);
    Json source = good;
    source["next"][0]["source"] = -1;
    EXPECT_EQ(recipe_from(source).error().code, ExitCode::kBadFile);
    EXPECT_EQ(recipe_from(Json::array()).error().code, ExitCode::kBadFile);
}

TEST(DecisionJson, RefusesALayoutThatNoMemoryHolds) {
    const auto layout = [](int dtype, std::int64_t elements) {
        return layout_from(Json::array(
            {{{"name", "w"}, {"dtype", dtype}, {"shape", {elements}}, {"kind", 0}, {"layer", 0}}}));
    };
    constexpr auto kMost = static_cast<std::int64_t>(kModelBytesMax / sizeof(float));
    EXPECT_TRUE(layout(1, kMost));
    EXPECT_NE(layout(1, kMost + 1).error().message.find("more than 64 GiB"), std::string::npos);
    EXPECT_EQ(layout(0, 1).error().code, ExitCode::kBadFile);
    EXPECT_EQ(layout(11, 1).error().code, ExitCode::kBadFile);
}

}  // namespace
}  // namespace ecopipe::test
