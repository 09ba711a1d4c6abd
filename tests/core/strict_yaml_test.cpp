#include "core/strict_yaml.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

std::string yaml_problem(const Result<Json>& result) {
    return result ? "" : result.error().message;
}

TEST(ParseYaml, ReadsTheScalarsPeopleWrite) {
    const auto json = parse_yaml(
        "name: my-home\nport: 5599\nx: 1.5\nflag: true\nquoted: \"12\"\nnone:\n"
        "list:\n  - {a: 1, b: -2e3}\n  - [x, y]\n",
        "f");
    ASSERT_TRUE(json) << yaml_problem(json);
    EXPECT_EQ((*json)["name"], "my-home");
    EXPECT_EQ((*json)["port"], 5599);
    EXPECT_EQ((*json)["x"], 1.5);
    EXPECT_EQ((*json)["flag"], true);
    EXPECT_EQ((*json)["quoted"], "12");
    EXPECT_TRUE((*json)["none"].is_null());
    EXPECT_EQ((*json)["list"][0]["b"], -2000.0);
    EXPECT_EQ((*json)["list"][1][1], "y");
    EXPECT_EQ(parse_yaml("a: 192.168.1.10", "f")->at("a"), "192.168.1.10");
}

TEST(ParseYaml, RefusesDuplicatesAliasesTagsAndDepth) {
    EXPECT_EQ(yaml_problem(parse_yaml("a: 1\na: 2\n", "f")), "f: line 2: key 'a' is given twice");
    EXPECT_NE(yaml_problem(parse_yaml("a: &x 1\nb: *x\n", "f")), "");
    EXPECT_NE(yaml_problem(parse_yaml("a: !!int 3\n", "f")), "");
    EXPECT_EQ(yaml_problem(parse_yaml(std::string(10 << 20, '['), "f")),
              "f: nested deeper than 64 levels");
    EXPECT_NE(yaml_problem(parse_yaml("a: [1, 2\n", "f")), "");
    EXPECT_NE(yaml_problem(parse_yaml("a: 1\n---\nb: 2\n", "f")), "");
    std::string dashes;
    for (int i = 0; i < 100000; ++i) dashes += "- ";
    EXPECT_NE(yaml_problem(parse_yaml(dashes, "f")), "");
}

// Found by fuzzing: such text was accepted and could not be written again.
TEST(StrictYaml, OtherTextThanUtf8IsRefused) {
    EXPECT_TRUE(parse_yaml("name: caf\xc3\xa9\n", "f"));
    EXPECT_FALSE(parse_yaml("name: caf\xe9\n", "f"));
    using namespace std::string_view_literals;
    EXPECT_EQ(yaml_problem(parse_yaml("a: x\0 y\n"sv, "f")), "f: is not UTF-8");
}

}  // namespace
}  // namespace ecopipe
