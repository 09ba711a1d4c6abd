#include "fl_server/service/class_names.h"

#include <gtest/gtest.h>

#include <optional>

namespace ecopipe {
namespace {

using Names = std::vector<std::string>;
using Kind = ClassDecision;

ClassNames list(const Names& names) { return ClassNames::of(names).value(); }

ClusterHello tells(const Names& names) {
    ClusterHello hello;
    hello.class_count = static_cast<std::uint32_t>(names.size());
    hello.classes = names;
    hello.classes_sha256 = classes_hash(names);
    return hello;
}
ClusterHello keeps_to_itself(const Names& names) {
    ClusterHello hello = tells(names);
    hello.classes.clear();
    return hello;
}
ClusterHello without_names(std::uint32_t count) {
    ClusterHello hello;
    hello.class_count = count;
    return hello;
}

std::optional<Kind> judged(const ClassNames& known, const ClusterHello& hello) {
    const auto decision = judge_classes(known, hello);
    return decision ? std::optional(*decision) : std::nullopt;
}
std::string reason(const ClassNames& known, const ClusterHello& hello) {
    const auto decision = judge_classes(known, hello);
    return decision ? "" : decision.error().message;
}

TEST(ClassNamesTest, TheFirstThatHasNamesTellsWhatLabelsStandFor) {
    EXPECT_EQ(judged({}, tells({"ant", "bee"})), Kind::kAdopt);
    EXPECT_EQ(judged({}, keeps_to_itself({"ant", "bee"})), Kind::kAdopt);
    EXPECT_EQ(judged({}, without_names(10)), Kind::kTake);
}

TEST(ClassNamesTest, OthersAreTakenMappedOrRefusedByName) {
    const ClassNames known = list({"ant", "bee", "cow"});
    EXPECT_EQ(judged(known, tells({"ant", "bee", "cow"})), Kind::kTake);
    EXPECT_EQ(judged(known, tells({"bee", "cow"})), Kind::kMap);
    EXPECT_EQ(judged(known, tells({"cow", "bee", "ant"})), Kind::kMap);
    EXPECT_EQ(reason(known, tells({"aardvark", "ant", "bee"})),
              "its class aardvark is not among the federation's: ant, bee, cow");
}

TEST(ClassNamesTest, WhoKeepsItsLabelsToItselfTellsOnlyWhetherTheyAreTheList) {
    const ClassNames known = list({"ant", "bee", "cow"});
    EXPECT_EQ(judged(known, keeps_to_itself({"ant", "bee", "cow"})), Kind::kTake);
    EXPECT_EQ(judged(known, keeps_to_itself({"bee", "cow"})), Kind::kMap) << "it sees for itself";
    const ClassNames secret{{}, classes_hash({"ant", "bee"})};
    EXPECT_EQ(judged(secret, keeps_to_itself({"ant", "bee"})), Kind::kTake);
    EXPECT_EQ(judged(secret, tells({"ant", "bee"})), Kind::kAdopt) << "now it is told";
    EXPECT_EQ(judged(secret, tells({"bee", "ant"})), std::nullopt);
    EXPECT_EQ(judged(secret, keeps_to_itself({"bee"})), std::nullopt);
}

TEST(ClassNamesTest, OfDataWithoutNamesOnlyTheCountMatters) {
    const ClassNames known = list({"ant", "bee", "cow"});
    EXPECT_EQ(judged(known, without_names(3)), Kind::kTake);
    EXPECT_EQ(judged(known, without_names(2)), Kind::kTake);
    EXPECT_EQ(judged(known, without_names(0)), Kind::kTake) << "numbers";
    EXPECT_EQ(reason(known, without_names(4)),
              "its data have 4 classes, the federation's are 3: ant, bee, cow");
}

TEST(ClassNamesTest, TheHashIsOfTheNamesInTheirOrder) {
    EXPECT_EQ(classes_hash({}), "");
    EXPECT_EQ(classes_hash({"ant", "bee"}).size(), 64U);
    EXPECT_NE(classes_hash({"ant", "bee"}), classes_hash({"bee", "ant"}));
    EXPECT_NE(classes_hash({"ab", "c"}), classes_hash({"a", "bc"}));
}

TEST(ClassNamesTest, ListsThatNoMessageCarriesAreRefused) {
    EXPECT_EQ(ClassNames::of({"ant", "ant"}).error().message, "classes: expected each class once");
    EXPECT_FALSE(ClassNames::of({""}));
    EXPECT_FALSE(ClassNames::of({std::string(256, 'a')}));
    EXPECT_FALSE(ClassNames::of({"\xff"}));
    EXPECT_TRUE(ClassNames::of({std::string(255, 'a')}));
}

TEST(ClassNamesTest, TheJournalsAreReadBackUnlessTheyAreDamaged) {
    for (const ClassNames& classes : {list({"ant", "bee"}), ClassNames{{}, classes_hash({"x"})}}) {
        const auto again = class_names_from(class_names_json(classes));
        ASSERT_TRUE(again) << again.error().message;
        EXPECT_EQ(again->names, classes.names);
        EXPECT_EQ(again->sha256, classes.sha256);
    }
    EXPECT_FALSE(class_names_from(Json{{"names", {"a"}}, {"sha256", "b"}}));
    EXPECT_FALSE(class_names_from(Json{{"names", 3}}));
}

}  // namespace
}  // namespace ecopipe
