#include "core/strict_json.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

std::string problem(const Result<Json>& result) { return result ? "" : result.error().message; }

TEST(ParseJson, NamesLineAndColumn) {
    EXPECT_EQ(problem(parse_json("{\n \"a\": }", "f.json")),
              "f.json: line 2, column 7: not valid JSON");
}

TEST(ParseJson, RefusesDuplicateKeysAtTheirOwnLevelOnly) {
    EXPECT_EQ(problem(parse_json(R"({"a":1,"a":2})", "f")), "f: key 'a' is given twice");
    EXPECT_TRUE(parse_json(R"({"a":{"a":1},"b":{"a":2},"c":[{"a":1},{"a":2}]})", "f"));
    EXPECT_FALSE(parse_json(R"([{"b":{"a":1,"c":{},"a":2}}])", "f"));
}

TEST(ParseJson, RefusesTenMegabytesOfBrackets) {
    EXPECT_EQ(problem(parse_json(std::string(10 << 20, '['), "f")),
              "f: nested deeper than 64 levels");
}

TEST(ParseJson, RefusesNonFiniteAndTrailingText) {
    EXPECT_FALSE(parse_json("NaN", "f"));
    EXPECT_FALSE(parse_json("{} {}", "f"));
    EXPECT_FALSE(parse_json("", "f"));
}

TEST(Fields, FirstProblemWinsAndNamesThePlace) {
    Document document(*parse_json(R"({"devices":[{"name":"a","mib":-5}],"x":1.5})", "c"), "c");
    Fields root = document.root();
    for (auto& device : root.objects("devices")) {
        EXPECT_EQ(device.text("name"), "a");
        static_cast<void>(device.integer("mib", {1, 100}));
        device.no_others();
    }
    EXPECT_EQ(document.finish().error().message,
              "c: devices[0].mib: expected an integer from 1 to 100, found -5");
}

TEST(Fields, RefusesLossyWrongMissingAndUnknown) {
    const auto refused = [](const char* text, auto&& read) {
        Document document(*parse_json(text, "f"), "f");
        Fields root = document.root();
        read(root);
        root.no_others();
        const auto result = document.finish();
        return result ? std::string() : result.error().message;
    };
    const auto integer = [](Fields& f) { static_cast<void>(f.integer("n", {0, 10})); };
    EXPECT_EQ(refused(R"({"n":1.9})", integer),
              "f: n: expected an integer from 0 to 10, found 1.9");
    EXPECT_NE(refused(R"({"n":18446744073709551615})", integer), "");
    EXPECT_NE(refused(R"({"n":"1"})", integer), "");
    EXPECT_EQ(refused(R"({})", integer), "f: n: is missing");
    EXPECT_EQ(refused(R"({"n":1,"m":2})", integer), "f: m: is not a known key");
    EXPECT_EQ(refused(R"([])", integer), "f: expected an object, found a list");
    EXPECT_EQ(refused(R"({"n":1})", integer), "");
}

}  // namespace
}  // namespace ecopipe
