#include "planner/cost/segments.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "core/random.h"

namespace ecopipe {
namespace {

SliceLayers drawn_chain(Rng& rng, int layers) {
    SliceLayers slice;
    std::vector<double> outputs{1 + static_cast<double>(rng.below(40))};
    for (int i = 0; i < layers; ++i) {
        SliceLayer layer;
        layer.forward_ms = 1 + static_cast<double>(rng.below(20));
        layer.stash = outputs.back() + static_cast<double>(rng.below(60));
        layer.workspace = static_cast<double>(rng.below(50));
        layer.passing = layer.workspace;
        layer.output = 1 + static_cast<double>(rng.below(40));
        layer.kept_output = rng.below(3) == 0 ? layer.output : 0;
        layer.may_begin = i == 0 || rng.below(6) != 0;
        slice.layers.push_back(layer);
        outputs.push_back(layer.output);
    }
    slice.entering = [outputs](int first, int) { return outputs[static_cast<std::size_t>(first)]; };
    return slice;
}

// As a graph's: what comes past other layers enters too.
SliceLayers drawn_graph(Rng& rng, int layers) {
    SliceLayers slice = drawn_chain(rng, layers);
    struct Skip {
        int from, to;
        double bytes;
    };
    std::vector<Skip> skips;
    for (int i = 0; i < layers / 2; ++i) {
        const int to = 1 + static_cast<int>(rng.below(static_cast<std::uint64_t>(layers - 1)));
        skips.push_back({static_cast<int>(rng.below(static_cast<std::uint64_t>(to))), to,
                         static_cast<double>(rng.below(20))});
        slice.layers[static_cast<std::size_t>(to)].stash += skips.back().bytes;
    }
    slice.entering = [chain = slice.entering, skips](int first, int last) {
        double bytes = chain(first, last);
        for (const Skip& skip : skips)
            if (skip.from < first && first <= skip.to && skip.to <= last) bytes += skip.bytes;
        return bytes;
    };
    return slice;
}

// A second account of the same: what is there, moment by moment of one forward and backward.
SegmentChoice played(const SliceLayers& slice, const Segments& segments) {
    SegmentChoice out{segments, 0, 0, 0};
    const auto layers = static_cast<int>(slice.layers.size());
    const auto at = [&](int i) -> const SliceLayer& {
        return slice.layers[static_cast<std::size_t>(i)];
    };
    const auto segment_of = [&](int layer) -> const LayerRange* {
        for (const LayerRange& segment : segments)
            if (segment.contains(layer)) return &segment;
        return nullptr;
    };
    std::vector<double> before;  // held when each layer's forward begins
    double there = 0;
    const auto see = [&](double bytes) { out.running = std::max(out.running, bytes); };
    for (int i = 0; i < layers; ++i) {
        const LayerRange* segment = segment_of(i);
        before.push_back(there);
        if (segment != nullptr) {
            if (i == segment->first) there += slice.entering(segment->first, segment->last);
            see(there + at(i).passing + (i > segment->first ? at(i - 1).output : 0));
            out.recompute_ms += at(i).forward_ms;
        } else {
            there += at(i).stash;
            see(there + at(i).workspace);
            if (i + 1 == layers) there += at(i).kept_output;
        }
    }
    see(out.held = there);
    for (int i = layers - 1; i >= 0; --i) {
        const LayerRange* segment = segment_of(i);
        if (segment == nullptr) {
            see(before[static_cast<std::size_t>(i)] + at(i).stash + at(i).workspace);
            continue;
        }
        double again = before[static_cast<std::size_t>(segment->first)];
        for (int k = segment->first; k <= segment->last; ++k) {
            again += at(k).stash;
            see(again + at(k).workspace);
        }
        see(again + at(segment->last).kept_output);
        i = segment->first;
    }
    return out;
}

// Every choice there is.
template <class Visit>
void each_choice(const SliceLayers& slice, int layer, Segments& chosen, const Visit& visit) {
    const auto layers = static_cast<int>(slice.layers.size());
    const auto may_part = [&](int i) {
        return i == layers || slice.layers[static_cast<std::size_t>(i)].may_begin;
    };
    if (layer == layers) return visit(chosen);
    each_choice(slice, layer + 1, chosen, visit);
    if (!may_part(layer)) return;
    for (int last = layer; last < layers; ++last) {
        if (!may_part(last + 1)) continue;
        chosen.push_back({layer, last});
        each_choice(slice, last + 1, chosen, visit);
        chosen.pop_back();
    }
}

void compare_with_all(const SliceLayers& slice, int in_flight) {
    std::vector<SegmentChoice> all;
    Segments chosen;
    each_choice(slice, 0, chosen,
                [&](const Segments& segments) { all.push_back(played(slice, segments)); });
    double least = std::numeric_limits<double>::infinity();
    for (const SegmentChoice& choice : all) {
        least = std::min(least, choice.peak(in_flight));
        const SegmentChoice same = footprint(slice, choice.segments);
        ASSERT_NEAR(same.held, choice.held, 1e-9);
        ASSERT_NEAR(same.running, choice.running, 1e-9);
        ASSERT_NEAR(same.recompute_ms, choice.recompute_ms, 1e-9);
    }
    EXPECT_NEAR(least_peak(slice, in_flight), least, 1e-9);
    const double whole = played(slice, {}).peak(in_flight);
    EXPECT_FALSE(least_recomputation(slice, in_flight, least * (1 - 1e-9) - 1e-9));
    for (const double share : {1.0, 0.7, 0.5, 0.3}) {
        const double room = std::max(share * whole, least + 1e-9);
        double best = std::numeric_limits<double>::infinity();
        for (const SegmentChoice& choice : all)
            if (choice.peak(in_flight) <= room) best = std::min(best, choice.recompute_ms);
        const auto found = least_recomputation(slice, in_flight, room);
        ASSERT_TRUE(found);
        EXPECT_NEAR(found->recompute_ms, best, 1e-9);
        EXPECT_LE(found->peak(in_flight), room);
        const SegmentChoice again = played(slice, found->segments);
        EXPECT_NEAR(again.peak(in_flight), found->peak(in_flight), 1e-9);
        EXPECT_NEAR(again.recompute_ms, found->recompute_ms, 1e-9);
    }
}

TEST(Segments, AreTheBestOfAll) {
    Rng rng(11);
    for (int i = 0; i < 200; ++i) {
        const int layers = 1 + static_cast<int>(rng.below(8));
        const int in_flight = 1 + static_cast<int>(rng.below(6));
        compare_with_all(
            i % 2 == 0 || layers < 2 ? drawn_chain(rng, layers) : drawn_graph(rng, layers),
            in_flight);
    }
}

TEST(Segments, NothingIsRecomputedWhereAllFits) {
    Rng rng(3);
    const SliceLayers slice = drawn_chain(rng, 12);
    const auto found = least_recomputation(slice, 4, footprint(slice, {}).peak(4));
    ASSERT_TRUE(found);
    EXPECT_TRUE(found->segments.empty());
}

TEST(Segments, TakenTogetherTheyTakeNoMoreThanIsSaid) {
    Rng rng(23);
    double extra = 0;
    for (int i = 0; i < 100; ++i) {
        const SliceLayers slice = i % 2 == 0
                                      ? drawn_chain(rng, 10 + static_cast<int>(rng.below(30)))
                                      : drawn_graph(rng, 10 + static_cast<int>(rng.below(30)));
        const CoarseSlice coarse = coarser(slice, 8);
        EXPECT_LE(coarse.slice.layers.size(), 8U);
        const double all = footprint(slice, {}).peak(3);
        for (const SegmentChoice& choice : best_choices(coarse.slice, all)) {
            const SegmentChoice real = footprint(slice, coarse.of_layers(choice.segments));
            EXPECT_LE(real.held, choice.held + 1e-9);
            EXPECT_LE(real.running, choice.running + 1e-9);
            EXPECT_NEAR(real.recompute_ms, choice.recompute_ms, 1e-9);
        }
        const auto coarsely = least_recomputation(coarse.slice, 3, 0.7 * all);
        const auto exactly = least_recomputation(slice, 3, 0.7 * all);
        ASSERT_TRUE(coarsely && exactly);
        extra += coarsely->recompute_ms / exactly->recompute_ms - 1;
        EXPECT_GE(coarsely->recompute_ms, exactly->recompute_ms - 1e-9);
    }
    EXPECT_LT(extra / 100, 0.5);
}

TEST(Segments, TheBestAreTheLeastForEveryCountAndRoom) {
    Rng rng(29);
    for (int i = 0; i < 50; ++i) {
        const SliceLayers slice = drawn_chain(rng, 2 + static_cast<int>(rng.below(8)));
        const double all = footprint(slice, {}).peak(4);
        const std::vector<SegmentChoice> best = best_choices(slice, all);
        for (const int count : {1, 2, 4})
            for (const double share : {0.9, 0.6, 0.4}) {
                const auto least = least_recomputation(slice, count, share * all);
                const auto found = std::find_if(
                    best.begin(), best.end(),
                    [&](const SegmentChoice& choice) { return choice.peak(count) <= share * all; });
                ASSERT_EQ(least.has_value(), found != best.end());
                if (!least) continue;
                EXPECT_EQ(found->recompute_ms, least->recompute_ms);
            }
    }
}

// Equal layers: the square root of their number of segments, by the paper's argument.
TEST(Segments, EqualLayersAreCutAsTheSquareRootSays) {
    SliceLayers slice;
    for (int i = 0; i < 64; ++i) slice.layers.push_back({1, 1, 0, 0, 1, 0, true});
    slice.entering = [](int, int) { return 1.0; };
    EXPECT_EQ(least_peak(slice, 1), 11);  // segments of 10, 9, ... 1 layers, and their inputs
    const auto found = least_recomputation(slice, 1, 15);
    ASSERT_TRUE(found);
    EXPECT_LE(found->recompute_ms, 62);
}

}  // namespace
}  // namespace ecopipe
