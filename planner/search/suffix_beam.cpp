#include "planner/search/suffix_beam.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "core/random.h"

namespace ecopipe {
namespace {

constexpr std::uint64_t kTryCost = 60;  // of one stage tried, in actions of the wavefront
constexpr int kBeginnings = 3;          // tried for a stage, from the furthest that fits
constexpr double kSimulations = 3;      // of a suffix that is kept, about

}  // namespace

SuffixBeam::SuffixBeam(const CostModel& model)
    : model_(model), micro_batches_(model.micro_batches()), guess_(model) {
    for (int layer = 0; layer < model.layers(); ++layer)
        if (model.may_cut_before(layer)) first_layer_.push_back(layer);
    first_layer_.push_back(model.layers());
    for (int d = 0; d < model.devices(); ++d)
        device_key_.push_back(keyed_seed(1, {static_cast<std::uint64_t>(d)}));
}

double SuffixBeam::expected_work(const CostModel& model, double width) {
    const double devices = model.devices();
    return width * devices *
           (devices / 2 * kBeginnings * static_cast<double>(kTryCost) +
            kSimulations * model.micro_batches() * devices);
}

// Notes the stages from `node` on, and their devices.
void SuffixBeam::open_chain(int node) {
    chain_.clear();
    used_.assign(device_key_.size(), 0);
    if (node < 0) return;
    double round = 0;
    for (const Node* stage = &nodes_[static_cast<std::size_t>(node)]; stage != nullptr;
         stage = next_of(*stage)) {
        round += stage->forward_ms + stage->backward_ms;
        chain_.push_back({round, stage->in_flight});
        round += 2 * (stage->cut.occupy_ms + stage->cut.latency_ms);
        used_[static_cast<std::size_t>(stage->span.device)] = 1;
    }
}

// The least in-flight count that the demands on it allow.
int SuffixBeam::least_count(const Node& node) const {
    const double m = micro_batches_;
    double out = 1;
    const double travel = 2 * (node.cut.occupy_ms + node.cut.latency_ms);
    const double own = node.forward_ms + node.backward_ms;
    for (const Later& later : chain_) {
        // At most this many hops; K - K_t + 1 micro-batches pass with each.
        const auto hops =
            static_cast<int>(std::min(spread_ms_ / (own + travel + later.round_ms), m));
        const double passing = m + static_cast<double>(hops) * (later.in_flight - 1);
        out =
            std::max({out, std::ceil(passing / (1 + hops)), static_cast<double>(later.in_flight)});
    }
    if (!chain_.empty() && node.forward_ms > 0) {
        const double forwards = (spread_ms_ - (m - 1) * node.backward_ms) / node.forward_ms;
        out = std::max(out, m - std::floor(std::min(forwards, m - 1)));
    }
    return static_cast<int>(out);
}

// Tries one stage; true when the demands on it can be met.
bool SuffixBeam::try_stage(const Place& place, int begin, bool recompute) {
    work_ += kTryCost;
    Node next;
    next.after = place.node;
    next.span = {place.device, first_layer_[static_cast<std::size_t>(begin)],
                 first_layer_[static_cast<std::size_t>(place.end)] - 1, recompute};
    next.in_flight_max = model_.in_flight_cap(next.span);
    if (next.in_flight_max < 1) return false;
    // What more in flight take is known once they are simulated.
    const StageCost cost = model_.stage_cost(next.span, 1);
    next.begin = begin;
    next.forward_ms = cost.forward_ms;
    next.backward_ms = cost.backward_ms;
    next.cut = place.cut;
    const double own = cost.forward_ms + cost.backward_ms;
    next.round_ms = own + 2 * (place.cut.occupy_ms + place.cut.latency_ms) + place.after_ms;
    if (micro_batches_ * own > spread_ms_ + next.round_ms ||
        (micro_batches_ - 1) * cost.backward_ms > spread_ms_)
        return false;
    next.in_flight = least_count(next);
    if (next.in_flight_max < next.in_flight) return false;
    next.backward_ms = model_.stage_cost(next.span, next.in_flight).backward_ms;
    next.key = device_key_[static_cast<std::size_t>(place.device)];
    if (const Node* after = next_of(next)) next.key += after->key;
    if (begin == 0) {
        finish(next);
        return true;
    }
    next.promised_ms = guess_.step_ms(spread_ms_, next.round_ms, next.span.first, used_);
    if (next.promised_ms < limit_ms_) candidates_.push_back(next);
    return true;
}

void SuffixBeam::finish(Node node) {
    const int portal = static_cast<int>(model_.cluster().portal);
    const double feed_ms = model_.output_ms(-1, portal, node.span.device);
    if ((micro_batches_ - 1) * feed_ms > spread_ms_) return;
    node.promised_ms =
        spread_ms_ + node.round_ms + feed_ms + model_.latency_ms(portal, node.span.device);
    if (node.promised_ms < limit_ms_) complete_.push_back(node);
}

// The first atom from which the stage can be as busy as it would be; memory is not looked at.
int SuffixBeam::furthest_begin(const Place& place) const {
    int low = 0;
    int high = place.end;
    while (low < high) {
        const int middle = (low + high) / 2;
        const StageCost cost =
            model_.stage_cost({place.device, first_layer_[static_cast<std::size_t>(middle)],
                               first_layer_[static_cast<std::size_t>(place.end)] - 1, false});
        const double own = cost.forward_ms + cost.backward_ms;
        const double round =
            own + 2 * (place.cut.occupy_ms + place.cut.latency_ms) + place.after_ms;
        if (micro_batches_ * own <= spread_ms_ + round &&
            (micro_batches_ - 1) * cost.backward_ms <= spread_ms_) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

// The device with the most layers that it can take, and with a few less.
void SuffixBeam::fill(const Place& place) {
    used_[static_cast<std::size_t>(place.device)] = 1;
    int tried = 0;
    for (int begin = furthest_begin(place); begin < place.end && tried < kBeginnings; ++begin) {
        const bool fits = try_stage(place, begin, false) || try_stage(place, begin, true);
        tried += fits ? 1 : 0;
        if (fits && begin == 0) break;
    }
    used_[static_cast<std::size_t>(place.device)] = 0;
}

void SuffixBeam::extend(int node) {
    open_chain(node);
    for (int device = 0; device < model_.devices(); ++device) {
        if (used_[static_cast<std::size_t>(device)]) continue;
        Place place{node, device, static_cast<int>(first_layer_.size()) - 1, {}, 0};
        if (node >= 0) {
            const Node& next = nodes_[static_cast<std::size_t>(node)];
            place.end = next.begin;
            place.after_ms = next.round_ms;
            place.cut = {model_.output_ms(next.span.first - 1, device, next.span.device),
                         model_.latency_ms(device, next.span.device), 0};
            if ((micro_batches_ - 1) * place.cut.occupy_ms > spread_ms_) continue;
        }
        fill(place);
    }
}

// Moves the best candidates to nodes_: of each set of devices with the same layers, one.
void SuffixBeam::keep_best(std::size_t width) {
    std::sort(candidates_.begin(), candidates_.end(), [](const Node& a, const Node& b) {
        if (a.promised_ms != b.promised_ms) return a.promised_ms < b.promised_ms;
        if (a.after != b.after) return a.after < b.after;
        if (a.span.device != b.span.device) return a.span.device < b.span.device;
        return a.begin < b.begin;
    });
    std::unordered_set<std::uint64_t> seen;
    for (Node& node : candidates_) {
        if (seen.size() == width) break;
        if (!seen.insert(node.key * 31 + static_cast<std::uint64_t>(node.begin)).second) continue;
        choose_count(node);
        nodes_.push_back(node);
    }
    candidates_.clear();
}

// The step of the stages from `front` on by themselves, `front` with this count.
double SuffixBeam::simulate(const Node& front, int in_flight, const Transfer& feed) {
    wave_.clear();
    Transfer up;
    for (const Node* node = &front; node != nullptr; node = next_of(*node)) {
        const bool chosen = node != &front || in_flight == node->in_flight;
        wave_.push_back(
            {node->forward_ms,
             chosen ? node->backward_ms : model_.stage_cost(node->span, in_flight).backward_ms, 0,
             node->cut, up, node == &front ? in_flight : node->in_flight});
        up = node->cut;
    }
    const double ms = wavefront_.step_ms(wave_, micro_batches_, feed, 0);
    work_ += wavefront_.actions();
    return ms;
}

// The least count with which the stages from `node` on keep to the spread; when none does, the
// least that is as good as memory's.
void SuffixBeam::choose_count(Node& node) {
    if (node.after < 0) return;
    const double allowed_ms = (spread_ms_ + node.round_ms) * (1 + 1e-9);
    if (simulate(node, node.in_flight, {}) <= allowed_ms) return;
    int low = node.in_flight;  // known not to do
    int high = node.in_flight_max;
    const double enough_ms = std::max(allowed_ms, simulate(node, high, {}));
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        (simulate(node, middle, {}) <= enough_ms ? high : low) = middle;
    }
    node.in_flight = high;
    node.backward_ms = model_.stage_cost(node.span, high).backward_ms;
}

SuffixBeam::Completion SuffixBeam::completion(double step_ms, const Node& front) const {
    Completion out{step_ms, {}, {}};
    for (const Node* node = &front; node != nullptr; node = next_of(*node)) {
        out.stages.push_back(node->span);
        out.in_flight.push_back(node->in_flight);
    }
    return out;
}

std::vector<SuffixBeam::Completion> SuffixBeam::build(double spread_ms, double limit_ms,
                                                      std::size_t width, std::size_t count_max) {
    spread_ms_ = spread_ms;
    limit_ms_ = limit_ms;
    nodes_.clear();
    complete_.clear();
    extend(-1);
    keep_best(width);
    for (std::size_t node = 0; node < nodes_.size();) {
        for (const std::size_t end = nodes_.size(); node < end; ++node)
            extend(static_cast<int>(node));
        keep_best(width);
    }
    std::vector<Completion> out;
    const int portal = static_cast<int>(model_.cluster().portal);
    for (Node& node : complete_) {
        choose_count(node);
        const int first = node.span.device;
        const Transfer feed{model_.output_ms(-1, portal, first), model_.latency_ms(portal, first),
                            0};
        out.push_back(completion(simulate(node, node.in_flight, feed), node));
    }
    std::stable_sort(out.begin(), out.end(), [](const Completion& a, const Completion& b) {
        return a.step_ms < b.step_ms;
    });
    out.resize(std::min(out.size(), count_max));
    return out;
}

}  // namespace ecopipe
