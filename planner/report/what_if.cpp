#include "planner/report/what_if.h"

#include <fmt/format.h>

#include <algorithm>

#include "planner/schedule/registry.h"
#include "planner/simulate/plan_timeline.h"

namespace ecopipe {
namespace {

constexpr double kEffort = 0.02;
constexpr std::size_t kLinksMax = 3;
constexpr std::size_t kCodecsMax = 2;
constexpr double kCodecWorthwhile = 0.99;  // of the step: less is no reason to change bytes
constexpr std::size_t kMemoriesMax = 2;
constexpr std::size_t kDropsMax = 4;

class WhatIfSearch {
  public:
    WhatIfSearch(const Cluster& cluster, const std::vector<ModelProfile>& profiles,
                 PlanRequest request, const Plan& plan, const PlayedPlan& played)
        : cluster_(cluster),
          profiles_(profiles),
          request_(std::move(request)),
          plan_(plan),
          played_(played) {
        request_.effort = kEffort;
        request_.micro_batches = plan.micro_batches;
        if (!request_.actions) request_.schedule = plan.schedule;
    }

    std::vector<WhatIf> run() {
        add_links();
        add_codecs();
        add_memories();
        add_drops();
        add_in_flight();
        return std::move(rows_);
    }

  private:
    // The best of a new search and, where it still fits, the plan as it is.
    void add(const std::string& change, const Cluster& changed, bool plan_survives) {
        std::optional<double> best;
        if (plan_survives)
            if (const auto same = play_plan(changed, profiles_, plan_, "plan"))
                best = same->timeline.step_ms;
        if (const auto found = search_plan(changed, profiles_, request_))
            best = std::min(best.value_or(found->predicted->step_ms), found->predicted->step_ms);
        rows_.push_back({change, best});
    }

    // The resources of the plan, those that carry for longest first.
    [[nodiscard]] std::vector<std::size_t> busiest_resources() const {
        std::vector<double> busy(played_.costs.resources.size(), 0);
        for (const TransferSpan& span : played_.timeline.transfers)
            busy[static_cast<std::size_t>(span.resource)] += span.end_ms - span.start_ms;
        std::vector<std::size_t> order;
        for (std::size_t r = 0; r < busy.size(); ++r) order.push_back(r);
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return busy[a] > busy[b]; });
        return order;
    }

    void add_links() {
        std::vector<std::string> done;
        for (const std::size_t r : busiest_resources()) {
            const Resource& resource = played_.costs.resources[r];
            const auto [name, changed] = twice_as_fast(resource);
            if (done.size() == kLinksMax || std::find(done.begin(), done.end(), name) != done.end())
                continue;
            done.push_back(name);
            add(name + " at twice the speed", changed, true);
        }
    }

    // The plan as it is, with half of the bytes in both directions of every cut over a link: only
    // where that shortens the step, for the bytes of the result are the price.
    void add_codecs() {
        std::vector<std::string> done;
        std::size_t rows = 0;
        for (const std::size_t r : busiest_resources()) {
            const std::string name = link_name(played_.costs.resources[r]);
            if (rows == kCodecsMax || std::find(done.begin(), done.end(), name) != done.end())
                continue;
            done.push_back(name);
            Plan coded = plan_;
            for (const auto& [from, to] : stages_over(name))
                for (TensorCodec* codec :
                     {&coded.stages[from].codec_forward, &coded.stages[to].codec_backward})
                    if (*codec == TensorCodec::kNone) *codec = TensorCodec::kFp16;
            const auto played = play_plan(played_.model, coded, "plan");
            if (!played || played->timeline.step_ms > kCodecWorthwhile * played_.timeline.step_ms)
                continue;
            ++rows;
            rows_.push_back({fmt::format("fp16 on {}; ends byte-identity with --single", name),
                             played->timeline.step_ms});
        }
    }

    // The stages whose values go over a link, each with the stage that takes them.
    [[nodiscard]] std::vector<std::pair<std::size_t, std::size_t>> stages_over(
        const std::string& link) const {
        std::vector<std::pair<std::size_t, std::size_t>> out;
        const auto add = [&](const Transfer& transfer, std::size_t from, std::size_t to) {
            const int r = transfer.resource;
            if (r >= 0 && link == link_name(played_.costs.resources[static_cast<std::size_t>(r)]))
                out.emplace_back(from, to);
        };
        for (std::size_t k = 0; k < played_.costs.forward.size(); ++k)
            add(played_.costs.forward[k], k, k + 1);
        // Where stages have twins the edges are their holders'.
        const std::vector<HeldStage> held = held_stages(plan_);
        for (const StageEdge& edge : played_.costs.values)
            if (edge.from >= 0)
                add(edge.transfer, held[static_cast<std::size_t>(edge.from)].stage,
                    held[static_cast<std::size_t>(edge.to)].stage);
        return out;
    }

    [[nodiscard]] std::string link_name(const Resource& resource) const {
        if (!resource.medium.empty()) return "medium " + resource.medium;
        const auto ends = std::minmax(resource.from, resource.to);
        return fmt::format("link {}-{}", cluster_.devices[ends.first].name,
                           cluster_.devices[ends.second].name);
    }

    // Both directions of a link are one thing to a person, as are all links of a medium.
    [[nodiscard]] std::pair<std::string, Cluster> twice_as_fast(const Resource& resource) const {
        Cluster changed = cluster_;
        if (!resource.medium.empty()) {
            if (changed.default_link.medium == resource.medium) changed.default_link.mbps *= 2;
            for (auto& [ends, link] : changed.links)
                if (link.medium == resource.medium) link.mbps *= 2;
            return {link_name(resource), changed};
        }
        const auto ends = std::minmax(resource.from, resource.to);
        Link link = cluster_.link(ends.first, ends.second);
        link.mbps *= 2;
        changed.links[ends] = link;
        return {link_name(resource), changed};
    }

    void add_memories() {
        std::vector<std::size_t> limited;
        for (std::size_t s = 0; s < played_.spans.size() && limited.size() < kMemoriesMax; ++s) {
            const auto device = static_cast<std::size_t>(played_.spans[s].device);
            const bool tight = played_.spans[s].recompute ||
                               played_.model.in_flight_cap(played_.spans[s]) < plan_.micro_batches;
            if (tight && std::find(limited.begin(), limited.end(), device) == limited.end())
                limited.push_back(device);
        }
        for (const std::size_t device : limited) {
            Cluster changed = cluster_;
            changed.devices[device].memory_mib *= 2;
            add(fmt::format("twice the memory on {}", cluster_.devices[device].name), changed,
                true);
        }
    }

    // Those that work least first: the likeliest to be given away.
    void add_drops() {
        const Placement& place = played_.costs.place;
        const auto device_at = [&](std::size_t d) {
            const int first = place.stage(static_cast<int>(d), 0);
            return static_cast<std::size_t>(played_.spans[static_cast<std::size_t>(first)].device);
        };
        std::vector<double> busy(static_cast<std::size_t>(place.devices()), 0);
        for (const ActionSpan& span : played_.timeline.actions)
            busy[static_cast<std::size_t>(span.device)] += span.end_ms - span.start_ms;
        std::vector<std::size_t> order;
        for (std::size_t d = 0; d < busy.size(); ++d)
            if (device_at(d) != cluster_.portal) order.push_back(d);
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return busy[a] < busy[b]; });
        order.resize(busy.size() == 1 ? 0 : std::min(order.size(), kDropsMax));
        for (const std::size_t d : order) {
            const std::size_t device = device_at(d);
            add(fmt::format("without {}", cluster_.devices[device].name),
                without_device(cluster_, device), false);
        }
    }

    void add_in_flight() {
        const Schedule* schedule = find_schedule(plan_.schedule);
        if (has_twins(plan_) || schedule == nullptr || !schedule->paced() ||
            plan_.stages.size() < 2 || plan_.stages.front().actions)
            return;
        const int stages = static_cast<int>(plan_.stages.size());
        add_counts("in-flight S-s, the textbook's", [&](int s) { return stages - s; });
        add_counts("in-flight 1 everywhere", [](int) { return 1; });
        add_counts("in-flight M everywhere, whatever the memory",
                   [&](int) { return plan_.micro_batches; });
    }

    template <class CountOf>
    void add_counts(const std::string& change, CountOf&& count_of) {
        Plan other = plan_;
        for (std::size_t s = 0; s < other.stages.size(); ++s)
            other.stages[s].in_flight =
                std::min(plan_.micro_batches, count_of(static_cast<int>(s)));
        const std::vector<double> peaks = played_.model.peak_bytes(other, played_.spans);
        const double bytes = *std::max_element(peaks.begin(), peaks.end());
        if (const auto played = play_plan(played_.model, other, "plan"))
            rows_.push_back({fmt::format("{} (largest stage {:.1f} MiB)", change, bytes / 1048576),
                             played->timeline.step_ms});
    }

    const Cluster& cluster_;
    const std::vector<ModelProfile>& profiles_;
    PlanRequest request_;
    const Plan& plan_;
    const PlayedPlan& played_;
    std::vector<WhatIf> rows_;
};

}  // namespace

Cluster without_device(const Cluster& cluster, std::size_t device) {
    const auto moved = [&](std::size_t d) { return d > device ? d - 1 : d; };
    Cluster out = cluster;
    out.devices.erase(out.devices.begin() + static_cast<std::ptrdiff_t>(device));
    out.portal = moved(cluster.portal);
    out.links.clear();
    for (const auto& [ends, link] : cluster.links)
        if (ends.first != device && ends.second != device)
            out.links[{moved(ends.first), moved(ends.second)}] = link;
    return out;
}

Result<std::vector<WhatIf>> what_if_rows(const Cluster& cluster,
                                         const std::vector<ModelProfile>& profiles,
                                         const PlanRequest& request, const Plan& plan) {
    ECOPIPE_ASSIGN_OR_RETURN(const PlayedPlan played, play_plan(cluster, profiles, plan, "plan"));
    return WhatIfSearch(cluster, profiles, request, plan, played).run();
}

}  // namespace ecopipe
