#include "planner/cost/rest_guess.h"

#include <algorithm>

namespace ecopipe {
namespace {
constexpr double kUsualWay = 0.5;  // of the mean link: the search finds the faster ones
}

RestGuess::RestGuess(const CostModel& model) : micro_batches_(model.micro_batches()) {
    const int last = model.layers() - 1;
    const auto work = [&](int d) { return model.work_ms(d, 0, last); };
    int fastest = 0;
    for (int d = 1; d < model.devices(); ++d)
        if (work(d) < work(fastest)) fastest = d;
    for (int d = 0; d < model.devices(); ++d) {
        Device device{d, work(d) > 0 ? work(fastest) / work(d) : 1,
                      model.stage_memory({d, 0, last, false}),
                      model.stage_memory({d, 0, last, true}), std::max(0.0, model.budget_bytes(d))};
        device.recomputing.in_flight = 0;  // inputs alone: not in proportion to the layers
        speeds_ += device.speed;
        devices_.push_back(device);
    }
    std::stable_sort(devices_.begin(), devices_.end(),
                     [](const Device& a, const Device& b) { return a.speed > b.speed; });
    forward_.push_back(0);
    backward_.push_back(0);
    for (int layer = 0; layer <= last; ++layer) {
        const StageCost cost = model.stage_cost({fastest, 0, layer, false});
        forward_.push_back(cost.forward_ms);
        backward_.push_back(cost.backward_ms);
    }
    measure_links(model);
}

void RestGuess::measure_links(const CostModel& model) {
    double total_ms = 0;
    int links = 0;
    for (int a = 0; a < model.devices(); ++a)
        for (int b = 0; b < model.devices(); ++b)
            for (int layer = 1; layer < model.layers(); ++layer) {
                if (a == b || !model.may_cut_before(layer)) continue;
                total_ms += model.output_ms(layer - 1, a, b) + model.latency_ms(a, b);
                ++links;
            }
    way_ms_ = links > 0 ? kUsualWay * 2 * total_ms / links : 0;
}

double RestGuess::step_ms(double spread_ms, double round_ms, int first,
                          const std::vector<char>& used) const {
    const auto at = static_cast<std::size_t>(first);
    const double m = micro_batches_;
    const double total = forward_.back() + backward_.back();
    double rest = forward_[at] + backward_[at];
    const double per_backward = backward_[at] > 0 ? rest / backward_[at] : 1;
    const double recomputed = rest > 0 ? rest / (rest + forward_[at]) : 1;
    for (const Device& device : devices_) {
        if (rest <= 0) break;
        if (used[static_cast<std::size_t>(device.index)]) continue;
        const double own_ms =
            std::min(spread_ms + round_ms + way_ms_, per_backward * spread_ms) / (m - 1);
        // What 1f1b comes to need in flight grows with the way to the end and back, up to M where
        // that takes as long as the spread.
        const double in_flight = std::min(m, 0.5 + m * (round_ms + way_ms_ + own_ms) / spread_ms);
        const auto held = [&](const StageMemory& whole) {
            return total * device.budget_bytes /
                   std::max({1.0, device.budget_bytes, whole.fixed + whole.in_flight * in_flight});
        };
        double taken = std::min(own_ms * device.speed, held(device.plain));
        double took_ms = taken / device.speed;
        const double again = std::min(own_ms * device.speed * recomputed, held(device.recomputing));
        if (again > taken) {
            taken = again;
            took_ms = taken / (device.speed * recomputed);
        }
        if (taken >= rest) took_ms *= rest / taken;
        rest -= taken;
        round_ms += took_ms + way_ms_;
    }
    // With no device left, all of them have to do more.
    return spread_ms + round_ms + m * std::max(0.0, rest) / speeds_;
}

}  // namespace ecopipe
