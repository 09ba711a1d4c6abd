#include "orchestrator/session/move_policy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/log.h"

namespace ecopipe {

void MovePolicy::because(std::string reason, bool must) {
    reasons_.push_back(std::move(reason));
    must_ = must_ || must;
}

void MovePolicy::measured(const std::string& device, double busy_ms) {
    const std::optional<Drift> drift = drift_.step(device, busy_ms);
    if (!drift) return;
    slowness_.try_emplace(device, 1.0).first->second *= drift->factor;
    because(fmt::format("{} takes {:.2f} times as long as before", device, drift->factor));
}

MovePolicy::Look MovePolicy::take(std::uint64_t step) {
    Look look{fmt::format("{}", fmt::join(reasons_, "; ")), must_};
    reasons_.clear();
    must_ = false;
    next_step_ = step + options_.cooldown_steps;
    return look;
}

Result<MovePolicy::Weighed> MovePolicy::weigh(ClusterPlanner& planner, const Plan& current,
                                              const Plan& candidate, double bytes,
                                              std::uint64_t remaining_steps) const {
    Weighed out;
    ECOPIPE_ASSIGN_OR_RETURN(out.offer.current_step_ms, planner.step_ms(current, slowness_));
    ECOPIPE_ASSIGN_OR_RETURN(out.offer.candidate_step_ms, planner.step_ms(candidate, slowness_));
    out.offer.remaining_steps = remaining_steps;
    out.offer.bytes = bytes;
    out.offer.slowest_mbps = planner.slowest_mbps();
    out.offer.fixed_ms = options_.fixed_ms;
    out.pays = weigh_move(out.offer).pays;
    return out;
}

}  // namespace ecopipe
