#include "planner/search/twin_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include "domain/sum_blocks.h"
#include "planner/schedule/holder_actions.h"
#include "planner/schedule/registry.h"
#include "planner/search/twin_groups.h"
#include "planner/simulate/simulator.h"

namespace ecopipe {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();
constexpr std::size_t kClimbs = 6;
constexpr std::size_t kPartedMax = 4;  // devices of which every order of groups is tried
constexpr double kGain = 0.9999;       // below this share of the time before it is a gain

// Few enough for all plans to be looked at.
constexpr int kDevicesAll = 5;
constexpr int kLayersAll = 12;
constexpr int kBlocksAll = 4;
constexpr double kEffortAll = 0.25;
constexpr int kBeginningsOver = 300;  // simulations beyond the effort's, for where to begin
constexpr double kSplitGain = 0.99;   // a backward that is split forbids to recompute: worth this
constexpr double kActionsAll = 4e6;   // simulated at effort 1

using Group = TwinGroup;
using Groups = TwinGroups;

class TwinSearch {
  public:
    TwinSearch(const CostModel& model, const Plan& pipeline, int sum_blocks, double effort,
               const std::string& schedule)
        : model_(model),
          pipeline_(pipeline),
          sum_blocks_(sum_blocks),
          effort_(effort),
          evaluations_left_(static_cast<int>(1000 * effort)),
          actions_left_(kActionsAll * effort),
          any_schedule_(schedule == kAutoSchedule),
          named_(any_schedule_ ? kOneFOneB : *find_schedule(schedule)) {
        for (int d = 0; d < model.devices(); ++d) by_speed_.push_back(d);
        std::stable_sort(by_speed_.begin(), by_speed_.end(), [&](int a, int b) {
            return model.work_ms(a, 0, model.layers() - 1) <
                   model.work_ms(b, 0, model.layers() - 1);
        });
    }

    TwinPlans run() {
        TwinPlans out;
        double data_parallel = kNone;
        for (std::size_t count = 2; count <= by_speed_.size(); ++count) {
            const Group all{{by_speed_.begin(), by_speed_.begin() + static_cast<int>(count)},
                            0,
                            model_.layers() - 1};
            data_parallel = std::min(data_parallel, look_at({all}));
        }
        if (data_parallel < kNone) out.data_parallel_ms = data_parallel;
        for (const Groups& groups : more_beginnings()) {
            if (evaluations_left_ < -kBeginningsOver) break;
            look_at(groups);
        }
        std::vector<std::pair<double, Groups>> from(looked_at_.begin(), looked_at_.end());
        if (from.size() > kClimbs) from.resize(kClimbs);
        for (std::size_t i = 0; i < from.size(); ++i) {
            const int left = evaluations_left_ / static_cast<int>(from.size() - i);
            climb(from[i].second, from[i].first, evaluations_left_ - left);
        }
        if (effort_ >= kEffortAll && !model_.is_graph() && !named_.splits_backward &&
            model_.devices() <= kDevicesAll && model_.layers() <= kLayersAll &&
            sum_blocks_ <= kBlocksAll)
            look_at_all();
        if (best_ms_ == kNone) return out;
        if (any_schedule_) split_backward();
        out.best = best_plan_;
        out.step_ms = best_ms_;
        return out;
    }

  private:
    // The stages of the pipeline with two neighbours made one; of few devices every way to part
    // them, of more two groups by speed.
    [[nodiscard]] std::vector<Groups> more_beginnings() const {
        std::vector<Groups> out;
        Groups stages;
        for (const StagePlan& stage : pipeline_.stages)
            stages.push_back({{static_cast<int>(*model_.cluster().find(stage.device))},
                              stage.first_layer,
                              stage.last_layer});
        const std::set<std::string> devices = [&] {
            std::set<std::string> names;
            for (const StagePlan& stage : pipeline_.stages) names.insert(stage.device);
            return names;
        }();
        if (devices.size() == stages.size())
            for (std::size_t s = 0; s + 1 < stages.size(); ++s) out.push_back(merged(stages, s));
        if (by_speed_.size() <= kPartedMax) {
            add_all_partings({}, 0, by_speed_, out);
            return out;
        }
        for (std::size_t first = 1; first < by_speed_.size(); ++first)
            for (const bool fast_first : {true, false}) {
                std::vector<int> order = by_speed_;
                if (!fast_first) std::reverse(order.begin(), order.end());
                const auto middle = order.begin() + static_cast<std::ptrdiff_t>(first);
                add_parted({}, 0, {order.begin(), middle}, {middle, order.end()}, out);
            }
        return out;
    }
    // `before`, then a stage of `here` and one of `rest`, cut evenly.
    void add_parted(const Groups& before, int first, const std::vector<int>& here,
                    const std::vector<int>& rest, std::vector<Groups>& out) const {
        const int last = model_.layers() - 1;
        const int cut = even_cut({{}, first, last}, here, rest);
        if (cut == 0) return;
        Groups groups = before;
        groups.push_back({here, first, cut - 1});
        groups.push_back({rest, cut, last});
        out.push_back(std::move(groups));
    }
    // Every way to part these devices into stages in a row.
    void add_all_partings(const Groups& before, int first, const std::vector<int>& devices,
                          std::vector<Groups>& out) const {
        const int last = model_.layers() - 1;
        for (std::size_t set = 1; set + 1 < (1U << devices.size()); ++set) {
            std::vector<int> here;
            std::vector<int> rest;
            for (std::size_t i = 0; i < devices.size(); ++i)
                ((set >> i & 1U) != 0 ? here : rest).push_back(devices[i]);
            add_parted(before, first, here, rest, out);
            const int cut = even_cut({{}, first, last}, here, rest);
            if (cut == 0 || rest.size() < 2) continue;
            Groups next = before;
            next.push_back({here, first, cut - 1});
            add_all_partings(next, cut, rest, out);
        }
    }
    [[nodiscard]] static Groups merged(Groups groups, std::size_t s) {
        Group& group = groups[s];
        group.devices.insert(group.devices.end(), groups[s + 1].devices.begin(),
                             groups[s + 1].devices.end());
        group.last = groups[s + 1].last;
        group.blocks.clear();
        groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(s) + 1);
        return groups;
    }
    // Where a group's layers part evenly over two sets of devices; 0: nowhere.
    [[nodiscard]] int even_cut(const Group& group, const std::vector<int>& front,
                               const std::vector<int>& back) const {
        const auto pace = [&](const std::vector<int>& devices, int first, int last) {
            double speed = 0;
            for (const int d : devices) speed += 1 / std::max(1e-9, model_.work_ms(d, first, last));
            return 1 / speed;
        };
        int best = 0;
        double best_ms = kNone;
        for (int cut = group.first + 1; cut <= group.last; ++cut) {
            if (!model_.may_cut_before(cut)) continue;
            const double ms =
                std::max(pace(front, group.first, cut - 1), pace(back, cut, group.last));
            if (ms < best_ms) {
                best = cut;
                best_ms = ms;
            }
        }
        return best;
    }

    void look_at_all() {
        for_all_twin_groups(
            model_, sum_blocks_, [&] { return best_ms_; },
            [&](const Groups& groups) {
                look_at(groups);
                return actions_left_ > 0;
            });
    }

    // To the best neighbour again and again, until none is better or so many simulations are left.
    void climb(Groups here, double here_ms, int until) {
        for (bool better = true; better;) {
            better = false;
            Groups best = here;
            for (const Groups& next : neighbours(here)) {
                if (evaluations_left_ <= until) return;
                const double ms = look_at(next);
                if (ms >= here_ms * kGain) continue;
                best = next;
                here_ms = ms;
                better = true;
            }
            here = std::move(best);
        }
    }
    [[nodiscard]] std::vector<Groups> neighbours(const Groups& groups) const {
        std::vector<Groups> out;
        const auto add = [&](const auto& change) {
            Groups next = groups;
            change(next);
            std::erase_if(next, [](const Group& group) { return group.devices.empty(); });
            if (!next.empty()) out.push_back(std::move(next));
        };
        const auto by_speed = [](Group& group) { group.blocks.clear(); };
        for (std::size_t s = 0; s + 1 < groups.size(); ++s) {
            for (const int by : {-4, -2, -1, 1, 2, 4}) {
                const int cut = groups[s].last + 1 + by;
                if (cut > groups[s].first && cut <= groups[s + 1].last &&
                    model_.may_cut_before(cut))
                    add([&](Groups& next) {
                        next[s].last = cut - 1;
                        next[s + 1].first = cut;
                    });
            }
            out.push_back(merged(groups, s));
        }
        std::set<int> used;
        for (std::size_t s = 0; s < groups.size(); ++s)
            for (std::size_t i = 0; i < groups[s].devices.size(); ++i) {
                const int device = groups[s].devices[i];
                used.insert(device);
                const auto leave = [&](Groups& next) {
                    next[s].devices.erase(next[s].devices.begin() + static_cast<std::ptrdiff_t>(i));
                    by_speed(next[s]);
                };
                if (groups[s].devices.size() > 1) {
                    add(leave);
                    for (const bool front : {true, false}) split(groups, s, i, front, out);
                }
                for (std::size_t t = 0; t < groups.size(); ++t) {
                    if (t == s) continue;
                    if (groups[s].devices.size() > 1)
                        add([&](Groups& next) {
                            leave(next);
                            next[t].devices.push_back(device);
                            by_speed(next[t]);
                        });
                    for (std::size_t j = 0; t > s && j < groups[t].devices.size(); ++j)
                        add([&](Groups& next) {
                            std::swap(next[s].devices[i], next[t].devices[j]);
                            by_speed(next[s]);
                            by_speed(next[t]);
                        });
                }
                const std::vector<int> counts = blocks_of(groups[s]);
                for (std::size_t j = 0; j < counts.size(); ++j)
                    for (const bool swapped : {false, true})
                        if (j != i && counts[i] > 0 && (!swapped || counts[i] - 1 == counts[j] + 1))
                            add([&](Groups& next) {
                                next[s].blocks = counts;
                                --next[s].blocks[i];
                                ++next[s].blocks[j];
                                if (swapped) std::swap(next[s].devices[i], next[s].devices[j]);
                            });
            }
        for (std::size_t s = 0; s < groups.size(); ++s) {
            if (s + 1 < groups.size())
                add([&](Groups& next) {
                    std::swap(next[s].devices, next[s + 1].devices);
                    by_speed(next[s]);
                    by_speed(next[s + 1]);
                });
            // Who stands first has the first blocks.
            for (std::size_t i = 0; i + 1 < groups[s].devices.size(); ++i)
                add([&](Groups& next) {
                    std::swap(next[s].devices[i], next[s].devices[i + 1]);
                    if (!next[s].blocks.empty())
                        std::swap(next[s].blocks[i], next[s].blocks[i + 1]);
                });
            for (const int device : by_speed_) {
                if (used.contains(device)) continue;
                add([&](Groups& next) {
                    next[s].devices.push_back(device);
                    by_speed(next[s]);
                });
                for (std::size_t i = 0; i < groups[s].devices.size(); ++i)
                    add([&](Groups& next) {
                        next[s].devices[i] = device;
                        by_speed(next[s]);
                    });
            }
        }
        return out;
    }
    // One device takes some of its group's layers alone, the first or the last of them.
    void split(const Groups& groups, std::size_t s, std::size_t i, bool front,
               std::vector<Groups>& out) const {
        std::vector<int> rest = groups[s].devices;
        const int alone = rest[i];
        rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
        const std::vector<int> one{alone};
        const int cut = even_cut(groups[s], front ? one : rest, front ? rest : one);
        if (cut == 0) return;
        Groups next = groups;
        next[s] = {front ? one : rest, groups[s].first, cut - 1};
        next.insert(next.begin() + static_cast<std::ptrdiff_t>(s) + 1,
                    {front ? rest : one, cut, groups[s].last});
        out.push_back(std::move(next));
    }

    double look_at(const Groups& groups) {
        Groups shared = groups;
        for (Group& group : shared) group.blocks = blocks_of(group);
        if (!seen_.insert(std::move(shared)).second) return kNone;
        double best = kNone;
        for (const InFlight in_flight : {InFlight::kAll, InFlight::kFew, InFlight::kAllButLast}) {
            if (std::optional<Plan> plan = plan_of(groups, in_flight))
                best = std::min(best, simulated(std::move(*plan)));
            if (named_.holds_all()) break;
        }
        if (best < kNone) looked_at_.emplace(best, groups);
        return best;
    }
    double simulated(Plan plan) {
        if (!has_twins(plan)) return kNone;
        --evaluations_left_;
        const auto spans = model_.spans(plan, "plan");
        if (!spans) return kNone;
        const std::vector<ActionList> lists = holder_actions(plan, plan.micro_batches);
        for (const ActionList& list : lists) actions_left_ -= static_cast<double>(list.size());
        const double ms = simulate(model_.pipeline(plan, *spans), lists).step_ms;
        if (ms < best_ms_) {
            best_ms_ = ms;
            best_plan_ = std::move(plan);
        }
        return ms;
    }
    // What would be idle at a step's end computes weight gradients. Nothing is recomputed then: who
    // has too little memory for that has fewer in flight.
    void split_backward() {
        const Plan whole = std::exchange(best_plan_, {});
        const double whole_ms = std::exchange(best_ms_, best_ms_ * kSplitGain);
        if (whole.stages.size() > 1 && model_.has_split_backward()) try_split(whole);
        if (!best_plan_.stages.empty()) return;
        best_plan_ = whole;
        best_ms_ = whole_ms;
    }
    void try_split(const Plan& whole) {
        for (const Schedule* schedule : schedules()) {
            if (!schedule->splits_backward || schedule->sliced()) continue;
            for (const int more : {-2, -1, 0, 1, 2}) {
                Plan plan = whole;
                plan.schedule = schedule->name;
                for (StagePlan& stage : plan.stages) {
                    const auto change = [&](auto& holder, int own) {
                        holder.in_flight = std::clamp(holder.in_flight + more, 1, own);
                        holder.recomputed.clear();
                    };
                    change(stage, stage.blocks.empty() ? plan.micro_batches : own_of(stage.blocks));
                    for (StageHolder& twin : stage.twins) change(twin, own_of(twin.blocks));
                }
                if (fit(plan) && check_holders(plan, "plan")) simulated(std::move(plan));
            }
        }
    }

    // As many as keep the stages behind busy; all that there are; all but in the last stage, whose
    // backwards then come at once.
    enum class InFlight { kFew, kAll, kAllButLast };

    // Nothing when it does not fit.
    [[nodiscard]] std::optional<Plan> plan_of(const Groups& groups, InFlight in_flight) const {
        Plan plan;
        plan.model = pipeline_.model;
        plan.batch = pipeline_.batch;
        plan.micro_batches = model_.micro_batches();
        plan.schedule = named_.name;
        plan.sum_blocks = sum_blocks_;
        int ahead = 0;  // in flight at least in all holders of the stage at hand together
        for (std::size_t s = groups.size(); s-- > 0;) {
            std::vector<StageHolder> holders = shared_out(groups[s]);
            ahead += static_cast<int>(holders.size()) + (s + 1 < groups.size() ? 1 : 0);
            for (StageHolder& holder : holders) {
                const auto blocks = static_cast<int>(holder.blocks.size());
                const int own = own_of(holder.blocks);
                const int share = (ahead * blocks + sum_blocks_ - 1) / sum_blocks_ +
                                  (s + 1 < groups.size() ? 1 : 0);
                const bool all = in_flight == InFlight::kAll ||
                                 (in_flight == InFlight::kAllButLast && s + 1 < groups.size());
                holder.in_flight = all                           ? own
                                   : in_flight == InFlight::kFew ? std::clamp(share, 1, own)
                                                                 : 1;
            }
            StagePlan stage;
            stage.first_layer = groups[s].first;
            stage.last_layer = groups[s].last;
            stage.device = holders.front().device;
            stage.in_flight = holders.front().in_flight;
            if (holders.size() > 1) stage.blocks = holders.front().blocks;
            stage.twins = {holders.begin() + 1, holders.end()};
            plan.stages.insert(plan.stages.begin(), std::move(stage));
        }
        if (!fit(plan) || !check_holders(plan, "plan")) return std::nullopt;
        return plan;
    }
    // As many as it says, or so that the slowest's last is done as early as can be.
    [[nodiscard]] std::vector<int> blocks_of(const Group& group) const {
        if (!group.blocks.empty()) return group.blocks;
        std::vector<int> counts(group.devices.size(), 0);
        std::vector<double> pace;
        for (const int d : group.devices)
            pace.push_back(std::max(1e-9, model_.work_ms(d, group.first, group.last)));
        for (int block = 0; block < sum_blocks_; ++block) {
            std::size_t next = 0;
            for (std::size_t i = 1; i < pace.size(); ++i)
                if ((counts[i] + 1) * pace[i] < (counts[next] + 1) * pace[next]) next = i;
            ++counts[next];
        }
        return counts;
    }
    // Whoever has none is left out. Those with most come first, so that each has few subtrees.
    [[nodiscard]] std::vector<StageHolder> shared_out(const Group& group) const {
        const std::vector<int> counts = blocks_of(group);
        std::vector<std::size_t> order(counts.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return counts[a] > counts[b]; });
        std::vector<StageHolder> holders;
        int block = 0;
        for (const std::size_t i : order) {
            if (counts[i] == 0) continue;
            StageHolder holder;
            holder.device =
                model_.cluster().devices[static_cast<std::size_t>(group.devices[i])].name;
            for (int k = 0; k < counts[i]; ++k) holder.blocks.push_back(block++);
            holders.push_back(std::move(holder));
        }
        return holders;
    }
    [[nodiscard]] int own_of(const std::vector<int>& blocks) const {
        return micro_batches_of(blocks, model_.micro_batches(), sum_blocks_);
    }
    // Who has too little memory recomputes.
    [[nodiscard]] bool fit(Plan& plan) const {
        const auto spans = model_.spans(plan, "plan");
        if (!spans) return false;
        std::vector<HeldStage> held = held_stages(plan);
        for (std::size_t h = 0, twin = 0; h < held.size(); ++h) {
            StagePlan& stage = plan.stages[held[h].stage];
            twin = h > 0 && held[h].stage == held[h - 1].stage ? twin + 1 : 0;
            const StageSpan& span = (*spans)[h];
            const double room = model_.budget_bytes(span.device);
            if (model_.holder_peak_bytes(span, held[h], plan) <= room) continue;
            // Beside what its layers take, whatever they recompute.
            const int in_flight = model_.in_flight_of(plan, held[h]);
            const double beside = model_.holder_peak_bytes(span, held[h], plan) -
                                  model_.stage_memory(span).peak(in_flight);
            auto segments = model_.segments_for(span, in_flight, room - beside, true);
            if (!segments) return false;
            held[h].holder.recomputed = std::move(*segments);
            (twin == 0 ? stage.recomputed : stage.twins[twin - 1].recomputed) =
                held[h].holder.recomputed;
        }
        return true;
    }

    const CostModel& model_;
    const Plan& pipeline_;
    int sum_blocks_;
    double effort_;
    int evaluations_left_;
    double actions_left_;
    bool any_schedule_;
    const Schedule& named_;
    std::vector<int> by_speed_;
    std::set<Groups> seen_;
    std::set<std::pair<double, Groups>> looked_at_;
    Plan best_plan_;
    double best_ms_ = kNone;
};

}  // namespace

TwinPlans search_with_twins(const CostModel& model, const Plan& pipeline, int sum_blocks,
                            double effort, const std::string& schedule) {
    return TwinSearch(model, pipeline, sum_blocks, effort, schedule).run();
}

}  // namespace ecopipe
