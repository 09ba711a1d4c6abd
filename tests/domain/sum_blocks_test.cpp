#include "domain/sum_blocks.h"

#include <gtest/gtest.h>

#include <string>

namespace ecopipe::test {
namespace {

TEST(SumTree, IsFoldedAlongOneBalancedTree) {
    const SumTree tree(4);
    const auto add = [](const std::string& a, const std::string& b) {
        return "(" + a + "+" + b + ")";
    };
    const auto sum = [&](std::vector<std::pair<int, std::string>> given) {
        std::vector<std::optional<std::string>> table(static_cast<std::size_t>(tree.nodes()));
        for (auto& [node, text] : given) table[static_cast<std::size_t>(node)] = std::move(text);
        return fold_sum(tree, table, 0, add);
    };
    const auto leaf = [&](int block) { return tree.leaf(block); };
    EXPECT_EQ(sum({{leaf(0), "a"}, {leaf(1), "b"}, {leaf(2), "c"}, {leaf(3), "d"}}),
              "((a+b)+(c+d))");
    EXPECT_EQ(sum({{leaf(0), "a"}, {leaf(1), "b"}, {leaf(2), "c"}}), "((a+b)+c)");
    EXPECT_EQ(sum({{leaf(0), "a"}, {leaf(3), "d"}}), "(a+d)");
    EXPECT_EQ(sum({{1, "(a+b)"}, {leaf(2), "c"}, {leaf(3), "d"}}), "((a+b)+(c+d))");
    EXPECT_EQ(sum({{leaf(0), "a"}}), "a");
    EXPECT_EQ(sum({}), std::nullopt);
}

TEST(SumTree, SubtreesAreAsHighAsCanBe) {
    const SumTree tree(8);
    const auto subtrees = [&](const std::vector<int>& blocks) {
        std::vector<bool> owned(8, false);
        for (const int block : blocks) owned[static_cast<std::size_t>(block)] = true;
        return tree.subtrees(owned);
    };
    EXPECT_EQ(subtrees({0, 1, 2, 3, 4, 5, 6, 7}), std::vector<int>{0});
    EXPECT_EQ(subtrees({0, 1, 2, 3}), std::vector<int>{1});
    EXPECT_EQ(subtrees({4, 5, 6}), (std::vector<int>{5, tree.leaf(6)}));
    EXPECT_EQ(subtrees({1, 2}), (std::vector<int>{tree.leaf(1), tree.leaf(2)}));
    EXPECT_EQ(subtrees({}), std::vector<int>{});
    EXPECT_EQ(SumTree(1).subtrees({true}), std::vector<int>{0});
}

TEST(SumTree, KnowsTheBlocksBelowANode) {
    const SumTree tree(4);
    EXPECT_EQ(tree.below(0).first, 0);
    EXPECT_EQ(tree.below(0).end, 4);
    EXPECT_EQ(tree.below(2).first, 2);
    EXPECT_EQ(tree.below(2).end, 4);
    EXPECT_EQ(tree.below(tree.leaf(3)).first, 3);
    EXPECT_EQ(tree.below(tree.leaf(3)).end, 4);
    EXPECT_EQ(tree.block_of(6), 2);
}

TEST(SumHomes, AreWhereTheBusiestDirectionCarriesLeast) {
    using Homes = std::map<int, std::size_t>;
    // Two of one subtree each: whatever the home, a layer goes once each way, and both ways at
    // once.
    EXPECT_EQ(sum_homes({{0, 8}, {1, 8}}, {1, 1}), (Homes{{0, 0}, {1, 1}}));
    // Who has two subtrees would send both.
    EXPECT_EQ(sum_homes({{0, 8}, {1, 8}}, {1, 2}), (Homes{{0, 1}, {1, 1}}));
    // Of three, a home takes two sums and gives two back: one layer each.
    EXPECT_EQ(sum_homes({{0, 8}, {1, 8}, {2, 8}}, {1, 1, 1}), (Homes{{0, 0}, {1, 1}, {2, 2}}));
    EXPECT_EQ(sum_homes({}, {1, 1}), Homes());
}

TEST(SumTree, HasAPowerOfTwoOfBlocks) {
    for (const int blocks : {1, 2, 4, 8, 16, 32, 64}) EXPECT_TRUE(is_sum_blocks(blocks));
    for (const int blocks : {-4, 0, 3, 6, 65, 128}) EXPECT_FALSE(is_sum_blocks(blocks));
}

}  // namespace
}  // namespace ecopipe::test
