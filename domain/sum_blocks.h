#pragma once
// In which order a step's gradients are added up, so that it does not matter who found them.
//
// A run has B sum blocks, a power of two: micro-batch m belongs to block m mod B. Within a block
// gradients are added in the order of the micro-batches; over the blocks along one balanced tree,
// ((0 + 1) + (2 + 3)) + ... Blocks without micro-batches are left out, zeros are never added in
// their place. So whoever holds some blocks alone can add them up, and one who is given the sums of
// whole subtrees gets the bits of one process. With B = 1 it is the plain sum in order.
//
// A node of the tree is numbered as in a heap: 0 is the root, 2i + 1 and 2i + 2 stand below i, and
// the leaves, B - 1 to 2B - 2, are the blocks.

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace ecopipe {

inline constexpr int kSumBlocksMax = 64;

[[nodiscard]] constexpr bool is_sum_blocks(std::int64_t blocks) {
    return blocks >= 1 && blocks <= kSumBlocksMax && (blocks & (blocks - 1)) == 0;
}

// How many of a step's micro-batches are of one of these blocks.
[[nodiscard]] int micro_batches_of(const std::vector<int>& blocks, int micro_batches,
                                   int sum_blocks);

class SumTree {
  public:
    explicit constexpr SumTree(int blocks = 1) : blocks_(blocks) {}

    [[nodiscard]] constexpr int blocks() const { return blocks_; }
    [[nodiscard]] constexpr int nodes() const { return 2 * blocks_ - 1; }
    [[nodiscard]] constexpr int block_of(std::uint32_t micro_batch) const {
        return static_cast<int>(micro_batch % static_cast<std::uint32_t>(blocks_));
    }
    [[nodiscard]] constexpr int leaf(int block) const { return blocks_ - 1 + block; }
    [[nodiscard]] constexpr bool is_leaf(int node) const { return node >= blocks_ - 1; }

    // The nodes, from left to right, that together have just these blocks, each as high up as can
    // be. `owned`: for each block, whether it is one of them.
    [[nodiscard]] std::vector<int> subtrees(const std::vector<bool>& owned) const;
    // The blocks below a node, the first and one past the last.
    struct Blocks {
        int first = 0;
        int end = 0;
    };
    [[nodiscard]] Blocks below(int node) const;

  private:
    int blocks_;
};

// Which holder adds up each layer, its home: the others send it what they have of the layer (one
// tensor for each of their subtrees) and get the sum back. `bytes`: of each layer's gradient;
// `subtrees`: of each holder. The largest layers first, each where the busiest direction of the
// busiest holder carries least, then where all sums have least far to go at first; ties go to the
// holder that stands first.
[[nodiscard]] std::map<int, std::size_t> sum_homes(const std::map<int, std::size_t>& bytes,
                                                   const std::vector<std::size_t>& subtrees);

// The sum at `node` of what stands in the table of all nodes: what stands at an inner node counts
// in place of all below it. `add(a, b)` is called in the tree's order; nothing where nothing is.
template <class Value, class Add>
[[nodiscard]] std::optional<Value> fold_sum(const SumTree& tree,
                                            std::vector<std::optional<Value>>& table, int node,
                                            const Add& add) {
    std::optional<Value>& here = table[static_cast<std::size_t>(node)];
    if (here || tree.is_leaf(node)) return std::exchange(here, std::nullopt);
    std::optional<Value> left = fold_sum(tree, table, 2 * node + 1, add);
    std::optional<Value> right = fold_sum(tree, table, 2 * node + 2, add);
    if (!left) return right;
    if (!right) return left;
    return add(std::move(*left), std::move(*right));
}

}  // namespace ecopipe
