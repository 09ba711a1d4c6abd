#include "stage_runtime/engine/model/graph/graph_file.h"

#include <gtest/gtest.h>

#include "core/strict_json.h"
#include "stage_runtime/engine/model/graph/operators.h"
#include "tests/support/small_graph.h"

namespace ecopipe {
namespace {

TEST(GraphFile, SaysWhoMakesAndWhoUsesEachValue) {
    const auto graph = parse_graph(test::small_graph(), "graph.json");
    ASSERT_TRUE(graph) << graph.error().message;
    EXPECT_EQ(graph->inputs, 1);
    ASSERT_EQ(graph->nodes.size(), 5U);
    EXPECT_EQ(graph->nodes[3].name, "d");
    const ValueGraph flow(graph->model_values(), graph->arguments(),
                          {true, true, true, true, true});
    EXPECT_FALSE(flow.is_chain());
    EXPECT_EQ(flow.layers(), 5);
    EXPECT_EQ(flow.values()[1].consumers, (std::vector<int>{1, 2, 3}));  // what a makes
    EXPECT_EQ(flow.values()[1].producer, 0);
    EXPECT_EQ(flow.results_of(3), (std::vector<int>{4, 5}));
    EXPECT_TRUE(flow.returns_gradient(4));
    EXPECT_FALSE(flow.returns_gradient(5)) << "a mask has none";
    EXPECT_FALSE(flow.returns_gradient(0)) << "nor has an input";
    EXPECT_EQ(flow.entering({2, 3}), (std::vector<int>{1, 2}));
    EXPECT_EQ(flow.leaving({0, 1}), (std::vector<int>{1, 2}));
    EXPECT_EQ(flow.leaving({4, 4}), std::vector<int>{6}) << "the loss is behind the last";
}

// One thing changed in the text.
std::string with(const std::string& from, const std::string& to) {
    std::string text = test::small_graph();
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
}

TEST(GraphFile, NoGradientComesBackWhereItSaysSo) {
    // What `b` makes: of floating-point numbers, and still without one.
    const auto graph =
        parse_graph(with(R"("b":{"dtype":"F32","shape":["B",4,8,8],"gradient":true})",
                         R"("b":{"dtype":"F32","shape":["B",4,8,8],"gradient":false})"),
                    "graph.json");
    ASSERT_TRUE(graph) << graph.error().message;
    const ValueGraph flow(graph->model_values(), graph->arguments(),
                          {true, true, true, true, true});
    EXPECT_FALSE(flow.returns_gradient(2));
    EXPECT_TRUE(flow.returns_gradient(1));
}

TEST(GraphFile, RefusesWhatIsNotRight) {
    const std::pair<std::pair<std::string, std::string>, std::string> cases[] = {
        {{"aten::relu\"", "aten::from_file\""},
         "node b: aten::from_file is no operator that a graph may use"},
        {{"aten::relu\"", "aten::relu_\""}, "node b: aten::relu_ is no operator"},
        {{"aten::relu\"", "prim::Print\""}, "node b: prim::Print is no operator"},
        {{"\"%b\",\"@b.weight\"", "\"%z\",\"@b.weight\""},
         "node c: aten::conv2d: uses \"%z\", which is not there"},
        {{"\"%b\",\"@b.weight\"", "\"%b\",\"@a.weight\""},
         "node c: aten::conv2d: uses \"@a.weight\""},
        {{"[\"aten::relu\",[\"%0\"]", "[\"aten::relu\",[\"%1\"]"},
         "uses \"%1\", which is not there"},
        {{"\"in\":[\"a\",\"b\"]", "\"in\":[\"a\",\"c\"]"},
         "node c: in: nothing before it makes \"c\""},
        {{"\"in\":[\"a\",\"b\"]", "\"in\":[\"a\",\"a\"]"}, "node c: in: a stands there twice"},
        {{"[\"c\",2]", "[\"c\",3]"}, "node c: out: no operator makes tensor 3"},
        {{"[\"c\",2]", "[\"q\",2]"}, "node c: out: q is not among the values"},
        {{"\"outputs\":[\"e\"]", "\"outputs\":[\"c\"]"}, "value e: nobody uses it"},
        {{"\"outputs\":[\"e\"]", "\"outputs\":[\"x\"]"}, "outputs: x is made by no node"},
        {{"\"outputs\":[\"e\"]", "\"outputs\":[\"e\",\"c\"]"}, "outputs: expected one"},
        {{"\"shape\":[\"B\",3,8,8]", "\"shape\":[3,8,8]"},
         "input x: expected \"B\" as its first dimension"},
        {{"\"shape\":[\"B\",3,8,8]", "\"shape\":[\"B\",-3,8,8]"}, "input x shape: expected a size"},
        {{"\"shape\":[\"B\",3,8,8]", "\"shape\":[\"B\",3,80000,800000]"},
         "input x: is larger than any tensor may be"},
        {{"\"shape\":[\"B\",3,8,8]", "\"shape\":[\"B\",1,1,1,1,1,1,1,1,1]"},
         "input x: has too many dimensions"},
        {{"ecopipe-graph/1", "ecopipe-graph/2"},
         "expected a graph of format ecopipe-graph/1, found \"ecopipe-graph/2\""},
        {{"ecopipe-graph/1", "something"}, "format: expected ecopipe-graph/1"},
        {{"\"F32\"", "\"F31\""}, "expected an element type such as F32, found \"F31\""},
        {{R"("F32","shape":[4],"kind":"buffer")", R"("I64","shape":[200000000],"kind":"buffer")"},
         "tensors: are larger together than any model's may be"},
        {{"\"kind\":\"buffer\"", "\"kind\":\"thing\""},
         "kind: expected parameter, buffer or constant"},
        {{"8],\"gradient\":false", "8],\"gradient\":true"},
         "value d:1: gradient: expected true (of floating-point numbers) or false"},
        {{"8],\"gradient\":false", "8],\"gradient\":0"}, "value d:1: gradient: expected"},
        {{"{\"batch\":1}", "{\"batch\":0}"}, "expected a multiple of the batch"},
        {{"{\"batch\":1}", "{\"shell\":1}"}, "expected an argument, found"},
        {{"{\"batch\":1}", "[[[[1]]]]"}, "a list is too long or too deep"},
        {{"[\"aten::relu\",[\"%0\"],{},1]", "[\"aten::relu\",[\"%0\"],{},0]"},
         "expected 1 to 1024 outputs"},
        {{"[\"aten::relu\",[\"%0\"],{},1]", "[\"aten::relu\",[\"%0\"]]"},
         "expected operators as [name, arguments, keywords, outputs]"},
        {{"\"tied\":[]", "\"tied\":[[\"a.weight\",\"b.weight\"]]"},
         "tied: b.weight stands there twice"},
        {{"\"tied\":[]", "\"tied\":[[\"nobody\",\"b.weight\"]]"}, "tied: nobody is no tensor"},
        {{"\"tied\":[]", "\"code\":[]"}, "unknown key \"code\""},
        {{"{\"name\":\"c\"", "{\"name\":\"b\""}, "b stands there twice"},
        {{"\"name\":\"c\"", "\"name\":\"c\\u0000\""}, "expected a name of printable characters"},
    };
    for (const auto& [change, expected] : cases) {
        const auto graph = parse_graph(with(change.first, change.second), "graph.json");
        ASSERT_FALSE(graph) << change.second;
        EXPECT_NE(graph.error().message.find(expected), std::string::npos)
            << change.second << ": " << graph.error().message;
        EXPECT_EQ(graph.error().code,
                  change.second == "ecopipe-graph/2" ? ExitCode::kMismatch : ExitCode::kBadFile);
        EXPECT_EQ(graph.error().message.find('\n'), std::string::npos);
    }
}

TEST(GraphFile, NoOperatorOfTheListReachesOutsideOrWrites) {
    for (const std::string_view name : graph_operators()) {
        const std::string_view plain = name.substr(0, name.find('.'));
        EXPECT_NE(plain.back(), '_') << name << " writes into its argument";
        for (const char* word :
             {"rand", "bernoulli", "normal", "from_file", "save", "load", "print", "resize", "set_",
              "nonzero", "masked_select", "unique", "::_"})
            EXPECT_EQ(plain.find(word), std::string_view::npos) << name;
    }
    EXPECT_TRUE(is_graph_operator("aten::add.Tensor"));
    EXPECT_FALSE(is_graph_operator("aten::add"));
    EXPECT_FALSE(is_graph_operator(""));
}

}  // namespace
}  // namespace ecopipe
