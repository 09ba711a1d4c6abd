#include "domain/sum_blocks.h"

#include <algorithm>
#include <tuple>

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

int micro_batches_of(const std::vector<int>& blocks, int micro_batches, int sum_blocks) {
    int count = 0;
    for (const int block : blocks)
        count += micro_batches / sum_blocks + (block < micro_batches % sum_blocks ? 1 : 0);
    return count;
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

std::map<int, std::size_t> sum_homes(const std::map<int, std::size_t>& bytes,
                                     const std::vector<std::size_t>& subtrees) {
    std::vector<std::pair<int, std::size_t>> layers(bytes.begin(), bytes.end());
    std::stable_sort(layers.begin(), layers.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    const std::size_t holders = subtrees.size();
    struct Load {
        double in = 0;
        double out = 0;
        double home = 0;
    };
    const auto with = [&](std::vector<Load> loads, std::size_t home, std::size_t layer_bytes) {
        const auto each = static_cast<double>(layer_bytes);
        for (std::size_t h = 0; h < holders; ++h) {
            if (h == home) continue;
            const double sums = each * static_cast<double>(subtrees[h]);
            loads[h].out += sums;
            loads[home].in += sums;
            loads[home].home += sums;
            loads[home].out += each;
            loads[h].in += each;
        }
        return loads;
    };
    const auto worst = [](const std::vector<Load>& loads) {
        double most = 0;
        double all = 0;
        double home = 0;
        for (const Load& load : loads) {
            most = std::max({most, load.in, load.out});
            all += load.out;
            home = std::max(home, load.home);
        }
        return std::tuple(most, all, home);
    };
    std::map<int, std::size_t> homes;
    std::vector<Load> loads(holders);
    for (const auto& [layer, layer_bytes] : layers) {
        std::size_t best = 0;
        for (std::size_t home = 1; home < holders; ++home)
            if (worst(with(loads, home, layer_bytes)) < worst(with(loads, best, layer_bytes)))
                best = home;
        homes[layer] = best;
        loads = with(std::move(loads), best, layer_bytes);
    }
    return homes;
}

}  // namespace ecopipe
