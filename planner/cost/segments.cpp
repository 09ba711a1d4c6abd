#include "planner/cost/segments.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

namespace ecopipe {
namespace {

// A choice for the layers before some layer.
struct Label {
    double held = 0;
    double running = 0;
    double ms = 0;
    int before = -1;  // the label it extends, among those of `begin`
    int begin = 0;    // of its last piece: a layer that keeps its stash, or a segment
    bool again = false;
};

// A segment from one layer on, growing layer by layer.
class GrowingSegment {
  public:
    GrowingSegment(const SliceLayers& slice, int first) : slice_(slice), first_(first) {}

    void grow(int layer) {
        const SliceLayer& added = slice_.layers[static_cast<std::size_t>(layer)];
        stash_ += added.stash;
        ms_ += added.forward_ms;
        largest_backward_ = std::max(largest_backward_, stash_ + added.workspace);
        backward_ = std::max(largest_backward_, stash_ + added.kept_output);
        forward_ = std::max(forward_, handed_on_ + added.passing);
        handed_on_ = added.output;
        last_ = layer;
    }
    [[nodiscard]] Label behind(const Label& label, int number) const {
        const double enters = slice_.entering(first_, last_);
        Label next = label;
        next.held += enters;
        next.running = std::max({label.running, label.held + backward_, next.held + forward_});
        if (last_ - first_ + 1 == static_cast<int>(slice_.layers.size()))
            next.running = std::max(next.running, slice_.running_whole);
        next.ms += ms_;
        next.before = number;
        next.begin = first_;
        next.again = true;
        return next;
    }

  private:
    const SliceLayers& slice_;
    int first_;
    int last_ = 0;
    double stash_ = 0;
    double ms_ = 0;
    double largest_backward_ = 0;
    double backward_ = 0;  // the most it takes there, beside what is held before it
    double forward_ = 0;   // the same, beside what enters it too
    double handed_on_ = 0;
};

Label behind_kept(const SliceLayers& slice, const Label& label, int number, int layer) {
    const SliceLayer& kept = slice.layers[static_cast<std::size_t>(layer)];
    const bool last = layer + 1 == static_cast<int>(slice.layers.size());
    Label next = label;
    next.held += kept.stash + (last ? kept.kept_output : 0);
    next.running = std::max({label.running, label.held + kept.stash + kept.workspace, next.held});
    next.before = number;
    next.begin = layer;
    next.again = false;
    return next;
}

// Leaves those that no other betters in everything, by time.
void keep_best(std::vector<Label>& labels) {
    std::sort(labels.begin(), labels.end(), [](const Label& a, const Label& b) {
        return std::tie(a.ms, a.held, a.running) < std::tie(b.ms, b.held, b.running);
    });
    std::map<double, double> least_running;  // by what is held: falling
    const auto bettered = [&](const Label& label) {
        auto at = least_running.upper_bound(label.held);
        if (at != least_running.begin() && std::prev(at)->second <= label.running) return true;
        while (at != least_running.end() && at->second >= label.running)
            at = least_running.erase(at);
        least_running[label.held] = label.running;
        return false;
    };
    labels.erase(std::remove_if(labels.begin(), labels.end(), bettered), labels.end());
}

class Walk {
  public:
    Walk(const SliceLayers& slice, int in_flight, double room, bool timed)
        : slice_(slice),
          more_(in_flight - 1),
          room_(room),
          timed_(timed),
          labels_(slice.layers.size() + 1) {
        labels_.front().push_back({});
        for (int layer = 0; layer < size(); ++layer) {
            keep_best(at(layer));
            for (std::size_t i = 0; i < at(layer).size(); ++i)
                offer(layer + 1, behind_kept(slice, at(layer)[i], static_cast<int>(i), layer));
            if (may_part(layer)) begin_segments(layer);
        }
        keep_best(labels_.back());
    }

    [[nodiscard]] const std::vector<Label>& complete() const { return labels_.back(); }
    [[nodiscard]] Segments segments_of(const Label& label) const {
        Segments segments;
        int end = size();
        for (const Label* at = &label; end > 0;) {
            if (at->again) segments.push_back({at->begin, end - 1});
            end = at->begin;
            at = &labels_[static_cast<std::size_t>(end)][static_cast<std::size_t>(at->before)];
        }
        std::reverse(segments.begin(), segments.end());
        return segments;
    }

  private:
    [[nodiscard]] int size() const { return static_cast<int>(slice_.layers.size()); }
    [[nodiscard]] std::vector<Label>& at(int layer) {
        return labels_[static_cast<std::size_t>(layer)];
    }
    [[nodiscard]] bool may_part(int layer) const {
        return layer == 0 || layer == size() ||
               slice_.layers[static_cast<std::size_t>(layer)].may_begin;
    }
    void begin_segments(int first) {
        GrowingSegment segment(slice_, first);
        for (int last = first; last < size(); ++last) {
            segment.grow(last);
            if (!may_part(last + 1)) continue;
            bool fits = false;
            for (std::size_t i = 0; i < at(first).size(); ++i)
                fits |= offer(last + 1, segment.behind(at(first)[i], static_cast<int>(i)));
            if (!fits) break;  // nor does a longer one: it takes no less
        }
    }
    bool offer(int layer, Label label) {
        if (!timed_) label.ms = 0;
        if (more_ * label.held + label.running > room_) return false;
        at(layer).push_back(label);
        return true;
    }

    const SliceLayers& slice_;
    int more_;
    double room_;
    bool timed_;
    std::vector<std::vector<Label>> labels_;  // of the layers before each
};

SegmentChoice choice_of(const Label& label, Segments segments) {
    return {std::move(segments), label.held, label.running, label.ms};
}

}  // namespace

SegmentChoice footprint(const SliceLayers& slice, const Segments& segments) {
    Label label;
    int layer = 0;
    const auto keep_until = [&](int end) {
        for (; layer < end; ++layer) label = behind_kept(slice, label, 0, layer);
    };
    for (const LayerRange& segment : segments) {
        keep_until(segment.first);
        GrowingSegment growing(slice, segment.first);
        for (; layer <= segment.last; ++layer) growing.grow(layer);
        label = growing.behind(label, 0);
    }
    keep_until(static_cast<int>(slice.layers.size()));
    return choice_of(label, segments);
}

std::optional<SegmentChoice> least_recomputation(const SliceLayers& slice, int in_flight,
                                                 double room) {
    const Walk walk(slice, in_flight, room, true);
    const Label* best = nullptr;
    const auto peak = [&](const Label& label) {
        return (in_flight - 1) * label.held + label.running;
    };
    for (const Label& label : walk.complete())
        if (best == nullptr || (label.ms <= best->ms && peak(label) < peak(*best))) best = &label;
    if (best == nullptr) return std::nullopt;
    return choice_of(*best, walk.segments_of(*best));
}

std::vector<SegmentChoice> best_choices(const SliceLayers& slice, double room) {
    const Walk walk(slice, 1, room, true);
    std::vector<SegmentChoice> out;
    for (const Label& label : walk.complete())
        out.push_back(choice_of(label, walk.segments_of(label)));
    return out;
}

Segments CoarseSlice::of_layers(const Segments& segments) const {
    Segments out;
    for (const LayerRange& segment : segments)
        out.push_back({first[static_cast<std::size_t>(segment.first)],
                       first[static_cast<std::size_t>(segment.last) + 1] - 1});
    return out;
}

CoarseSlice coarser(const SliceLayers& slice, int count_max) {
    CoarseSlice out;
    const std::size_t layers = slice.layers.size();
    double stash = 0;
    for (const SliceLayer& layer : slice.layers) stash += layer.stash;
    const double each = stash / count_max;
    double before = 0;  // of the stash
    for (std::size_t i = 0; i < layers; ++i) {
        const SliceLayer& layer = slice.layers[i];
        const auto left = static_cast<int>(layers - i);
        const auto room = count_max - static_cast<int>(out.first.size());
        // As many as there may be, each with about as much of the stash.
        const bool due = before >= each * static_cast<double>(out.first.size()) || left <= room;
        if (i == 0 || (layer.may_begin && room > 0 && due)) {
            out.first.push_back(static_cast<int>(i));
            out.slice.layers.push_back({0, 0, 0, 0, 0, 0, layer.may_begin});
        }
        SliceLayer& group = out.slice.layers.back();
        const bool leads = out.first.back() == static_cast<int>(i);
        group.passing =
            std::max(group.passing, (leads ? 0 : slice.layers[i - 1].output) + layer.passing);
        // For now with the stash of the group so far.
        group.workspace = std::max(group.workspace, group.stash + layer.stash + layer.workspace);
        group.stash += layer.stash;
        group.forward_ms += layer.forward_ms;
        group.output = layer.output;
        group.kept_output = layer.kept_output;
        before += layer.stash;
    }
    for (SliceLayer& group : out.slice.layers)
        group.workspace = std::max(0.0, group.workspace - group.stash);
    out.first.push_back(static_cast<int>(layers));
    out.slice.running_whole = slice.running_whole;
    out.slice.entering = [entering = slice.entering, first = out.first](int from, int last) {
        return entering(first[static_cast<std::size_t>(from)],
                        first[static_cast<std::size_t>(last) + 1] - 1);
    };
    return out;
}

double least_peak(const SliceLayers& slice, int in_flight) {
    double least = std::numeric_limits<double>::infinity();
    const Walk walk(slice, in_flight, least, false);
    for (const Label& label : walk.complete())
        least = std::min(least, (in_flight - 1) * label.held + label.running);
    return least;
}

}  // namespace ecopipe
