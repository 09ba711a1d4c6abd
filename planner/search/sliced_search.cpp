#include "planner/search/sliced_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "core/check.h"
#include "core/random.h"
#include "planner/schedule/registry.h"
#include "planner/schedule/schedule_check.h"
#include "planner/search/layout.h"
#include "planner/simulate/simulator.h"

namespace ecopipe {
namespace {

constexpr std::uint64_t kSlicedEventCost =
    12;  // of one simulated action, in actions of the recurrence

class SlicedSearch {
  public:
    SlicedSearch(const CostModel& model, const GivenSchedule& schedule, std::uint64_t work_max,
                 std::uint64_t seed)
        : model_(model),
          schedule_(schedule),
          estimator_(model, kOneFOneB),
          rng_(seed),
          work_max_(work_max) {
        for (const ActionList& list : schedule.lists) step_cost_ += kSlicedEventCost * list.size();
        if (model.is_graph()) step_cost_ *= 2;  // it has more to send
    }

    SlicedArrangement run(const std::vector<std::vector<int>>& orders) {
        std::vector<std::pair<double, Layout>> starts;
        for (const std::vector<int>& order : orders) {
            if (static_cast<int>(order.size()) != schedule_.place.devices()) continue;
            Layout layout = least_largest_stage(estimator_, repeated(order));
            if (layout.devices.empty()) return {};  // fewer atoms than stages
            starts.emplace_back(price(layout), std::move(layout));
        }
        std::stable_sort(starts.begin(), starts.end(),
                         [](const auto& a, const auto& b) { return a.first < b.first; });
        const std::size_t rounds = std::min<std::size_t>(3, starts.size());
        for (std::size_t i = 0; i < rounds; ++i)
            anneal(starts[i].first, starts[i].second, work_max_ * (i + 1) / rounds);
        return {best_, schedule_.place.devices(), work_};
    }

  private:
    [[nodiscard]] std::vector<int> repeated(const std::vector<int>& order) const {
        std::vector<int> out;
        for (int stage = 0; stage < schedule_.place.stages(); ++stage)
            out.push_back(order[static_cast<std::size_t>(schedule_.place.device(stage))]);
        return out;
    }

    [[nodiscard]] std::vector<std::size_t> stages_of(int device) const {
        std::vector<std::size_t> out;
        for (int slice = 0; slice < schedule_.place.slices(device); ++slice)
            out.push_back(static_cast<std::size_t>(schedule_.place.stage(device, slice)));
        return out;
    }

    // Bytes that a device misses with these stages, as a share of its memory. `skips`: theirs.
    [[nodiscard]] double missing(const std::vector<StageSpan>& stages,
                                 const std::vector<StageLoad>& skips, int device) const {
        double bytes = 0;
        for (const std::size_t k : stages_of(device))
            bytes += model_.stage_memory(stages[k]).peak(schedule_.peak_in_flight[k]) +
                     waiting_bytes(skips, k, schedule_.peak_in_flight);
        const double budget = model_.budget_bytes(stages[stages_of(device).front()].device);
        return bytes <= budget ? 0 : bytes / std::max(1.0, budget) - 1 + 1e-9;
    }

    // The stages, a device's recomputing where they would not fit otherwise; what still misses is
    // added to `short_of`.
    std::vector<StageSpan> fitted(const Layout& layout, double& short_of) const {
        std::vector<StageSpan> stages = estimator_.plain_stages(layout);
        const std::vector<StageLoad> skips = model_.skips(stages);
        for (int d = 0; d < schedule_.place.devices(); ++d) {
            for (const std::size_t k : stages_of(d)) {
                if (schedule_.split_backward || missing(stages, skips, d) <= 0) break;
                stages[k].recompute = true;
            }
            short_of += missing(stages, skips, d);
        }
        return stages;
    }

    // The simulated step; above every step when it does not fit.
    double price(const Layout& layout) {
        double short_of = 0;
        const std::vector<StageSpan> stages = fitted(layout, short_of);
        work_ += step_cost_;
        if (short_of > 0) return 1e12 * (1 + short_of);
        const double ms =
            simulate(model_.pipeline(stages, schedule_.place), schedule_.lists).step_ms;
        Arrangement found{stages, schedule_.peak_in_flight, ms};
        if (better(found, best_)) best_ = std::move(found);
        return ms;
    }

    void anneal(double ms, Layout layout, std::uint64_t until) {
        constexpr double kWarm = 0.02;
        constexpr std::uint64_t kTries =
            200;  // of every pair of a stage and a device: small problems end early
        const std::uint64_t pairs =
            layout.ends.size() * static_cast<std::uint64_t>(model_.devices());
        until = std::min(until, work_ + kTries * pairs * step_cost_);
        const std::uint64_t start = work_;
        while (work_ < until) {
            const double heat = kWarm * (1 - static_cast<double>(work_ - start) /
                                                 static_cast<double>(until - start));
            Layout next = layout;
            work_ += step_cost_ / 16 + 1;
            if (!change(next)) continue;
            const double next_ms = price(next);
            if (next_ms > ms &&
                rng_.uniform() >= std::exp((ms - next_ms) / (std::max(heat, 1e-6) * ms)))
                continue;
            layout = std::move(next);
            ms = next_ms;
        }
    }

    bool change(Layout& layout) {
        const auto devices = static_cast<std::uint64_t>(schedule_.place.devices());
        if (rng_.below(5) == 0) return change_device(layout, static_cast<int>(rng_.below(devices)));
        if (layout.ends.size() < 2) return false;
        // One atom from one stage to another: the cuts between them shift.
        const auto stages = static_cast<std::uint64_t>(layout.ends.size());
        const auto low = static_cast<std::size_t>(rng_.below(stages - 1));
        const auto high = rng_.below(2) == 0
                              ? low + 1
                              : low + 1 + static_cast<std::size_t>(rng_.below(stages - 1 - low));
        const int by = rng_.below(2) == 0 ? 1 : -1;
        for (std::size_t cut = low; cut < high; ++cut) layout.ends[cut] += by;
        int before = 0;
        for (const int end : layout.ends) {
            if (end <= before) return false;
            before = end;
        }
        return true;
    }

    bool change_device(Layout& layout, int position) {
        const int old_device = layout.devices[stages_of(position).front()];
        const int new_device =
            static_cast<int>(rng_.below(static_cast<std::uint64_t>(model_.devices())));
        if (old_device == new_device) return false;
        const int portal = static_cast<int>(model_.cluster().portal);
        if (schedule_.from_portal && (old_device == portal || new_device == portal)) return false;
        for (int& device : layout.devices)  // when it is there already, the two trade places
            device = device == old_device ? new_device : device == new_device ? old_device : device;
        return true;
    }

    const CostModel& model_;
    const GivenSchedule& schedule_;
    LayoutEstimator estimator_;
    Rng rng_;
    std::uint64_t work_max_;
    std::uint64_t work_ = 0;
    std::uint64_t step_cost_ = 0;
    Arrangement best_;
};

// In place of whoever was first, and who takes its turn.
void lead_with(int device, std::vector<int>& order) {
    const auto found = std::find(order.begin(), order.end(), device);
    if (found != order.end()) *found = order.front();
    order.front() = device;
}

}  // namespace

SlicedArrangement search_given(const CostModel& model, const GivenSchedule& schedule,
                               const std::vector<std::vector<int>>& orders, std::uint64_t work_max,
                               std::uint64_t seed) {
    const auto devices = static_cast<std::size_t>(schedule.place.devices());
    if (devices > static_cast<std::size_t>(model.devices())) return {};
    std::vector<int> given(static_cast<std::size_t>(model.devices()));
    std::iota(given.begin(), given.end(), 0);
    std::vector<int> by_speed = given;
    const auto whole = [&](int d) {
        return model.stage_cost({d, 0, model.layers() - 1, false}).forward_ms;
    };
    std::stable_sort(by_speed.begin(), by_speed.end(),
                     [&](int a, int b) { return whole(a) < whole(b); });
    by_speed.resize(devices);
    std::set<std::vector<int>> all(orders.begin(), orders.end());
    all.insert(by_speed);
    all.insert({by_speed.rbegin(), by_speed.rend()});
    std::sort(by_speed.begin(), by_speed.end());
    all.insert(by_speed);
    std::vector<std::vector<int>> starts(all.begin(), all.end());
    if (schedule.from_portal)
        for (std::vector<int>& order : starts)
            lead_with(static_cast<int>(model.cluster().portal), order);
    return SlicedSearch(model, schedule, work_max, seed).run(starts);
}

GivenSchedule given_schedule(const Schedule& schedule, int micro_batches, int devices, int slices) {
    GivenSchedule out;
    out.place = schedule.place(devices, slices);
    out.from_portal = schedule.placing == Placing::kFolded;
    ScheduleText text;
    text.placement = out.place;
    for (int d = 0; d < devices; ++d) {
        text.devices.push_back(schedule.actions(
            {.micro_batches = micro_batches, .device = d, .devices = devices, .slices = slices}));
        text.places.emplace_back("list");
    }
    const auto facts = check_schedule(text, std::string(schedule.name));
    ECOPIPE_CHECK(facts.has_value());
    out.lists = std::move(text.devices);
    out.peak_in_flight = facts->peak_in_flight;
    out.split_backward = facts->split_backward;
    return out;
}

}  // namespace ecopipe
