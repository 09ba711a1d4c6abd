#include "domain/sum_blocks.h"

#include <algorithm>

namespace ecopipe {

SumTree::Blocks SumTree::below(int node) const {
    int first = node;
    int last = node;
    while (!is_leaf(first)) {
        first = 2 * first + 1;
        last = 2 * last + 2;
    }
    return {first - leaf(0), last - leaf(0) + 1};
}

std::vector<int> SumTree::subtrees(const std::vector<bool>& owned) const {
    const auto all_owned = [&](int node) {
        const Blocks blocks = below(node);
        return std::all_of(owned.begin() + blocks.first, owned.begin() + blocks.end,
                           [](bool each) { return each; });
    };
    std::vector<int> found;
    for (int node = 0; node < nodes(); ++node)
        if (all_owned(node) && (node == 0 || !all_owned((node - 1) / 2))) found.push_back(node);
    std::sort(found.begin(), found.end(),
              [&](int a, int b) { return below(a).first < below(b).first; });
    return found;
}

}  // namespace ecopipe
