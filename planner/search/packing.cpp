#include "planner/search/packing.h"

#include <algorithm>

namespace ecopipe {
namespace {
constexpr int kShorter =
    4;  // cuts tried before the furthest when its tensor is too large for the link
}

Packer::Packer(const CostModel& model, const Schedule& schedule)
    : model_(model), schedule_(schedule) {
    for (int layer = 0; layer < model.layers(); ++layer)
        if (model.may_cut_before(layer)) first_layer_.push_back(layer);
    first_layer_.push_back(model.layers());
}

StageSpan Packer::span(int device, int begin, int end) const {
    return {device, first_layer_[static_cast<std::size_t>(begin)],
            first_layer_[static_cast<std::size_t>(end)] - 1, false};
}

bool Packer::fits(int device, int begin, int end, const Way& way, double step_ms) const {
    StageSpan stage = span(device, begin, end);
    const double m = model_.micro_batches();
    const bool split = schedule_.splits_backward;
    const double work = model_.work_ms(device, stage.first, stage.last, split);
    if (way.head_ms + m * work + (split ? 0 : way.tail_ms) > step_ms) return false;
    if (model_.in_flight_cap(stage) >= way.needed) return true;
    stage.recompute = true;
    if (split || model_.in_flight_cap(stage) < way.needed) return false;
    const StageCost cost = model_.stage_cost(stage, way.needed);
    return way.head_ms + m * (cost.forward_ms + cost.backward_ms) + way.tail_ms <= step_ms;
}

std::optional<Layout> Packer::pack(const std::vector<int>& order, double step_ms,
                                   int stages_expected) const {
    const int atoms = static_cast<int>(first_layer_.size()) - 1;
    const int m = model_.micro_batches();
    Layout out;
    int begin = 0;
    int from = static_cast<int>(model_.cluster().portal);
    Way way{0, 0, 1};
    for (std::size_t s = 0; s < order.size() && begin < atoms; ++s) {
        const int device = order[s];
        const int layer = first_layer_[static_cast<std::size_t>(begin)];
        const double travel =
            model_.output_ms(layer - 1, from, device) + model_.latency_ms(from, device);
        way.head_ms += travel;
        if (s > 0 && model_.returns_gradient(layer - 1)) way.tail_ms += travel;
        way.needed =
            schedule_.holds_all() ? m : std::clamp(stages_expected - static_cast<int>(s), 1, m);
        int low = begin;  // the furthest end known to fit; `begin` for none
        for (int high = atoms; low < high;) {
            const int middle = (low + high + 1) / 2;
            if (fits(device, begin, middle, way, step_ms)) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        if (low == begin) return std::nullopt;
        if (low < atoms && s + 1 < order.size()) {
            const auto link_ms = [&](int end) {
                return way.head_ms + way.tail_ms +
                       m * model_.output_ms(span(device, begin, end).last, device, order[s + 1]);
            };
            int end = low;
            while (end - 1 > begin && low - end < kShorter && link_ms(end) > step_ms) --end;
            low = end;
        }
        const StageCost cost = model_.stage_cost(span(device, begin, low));
        way.head_ms += cost.forward_ms;
        way.tail_ms += schedule_.splits_backward ? cost.input_gradient_ms : cost.backward_ms;
        out.devices.push_back(device);
        out.ends.push_back(low);
        begin = low;
        from = device;
    }
    if (begin < atoms) return std::nullopt;
    return out;
}

}  // namespace ecopipe
