#include "orchestrator/session/move_policy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/log.h"

namespace ecopipe {
namespace {

constexpr double kNoLess = 0.9;  // of what a device was short with before

}  // namespace

void MovePolicy::because(std::string reason, bool must) {
    reasons_.push_back(std::move(reason));
    must_ = must_ || must;
}

void MovePolicy::measured(const std::string& device, double busy_ms) {
    const std::optional<Drift> drift = drift_.step(device, busy_ms);
    if (!drift) return;
    conditions_.slowness.try_emplace(device, 1.0).first->second *= drift->factor;
    because(fmt::format("{} takes {:.2f} times as long as before", device, drift->factor));
}

void MovePolicy::short_of_memory(const std::string& device, std::optional<double> tensor_mib) {
    const auto known = conditions_.tensor_mib.find(device);
    if (tensor_mib) {
        // A little less than what was answered already is no reason for another answer.
        if (known != conditions_.tensor_mib.end() && *tensor_mib > kNoLess * known->second) return;
        conditions_.tensor_mib[device] = *tensor_mib;
        memory_ = true;
        because(fmt::format("{} has memory for {:.1f} MiB of tensors", device, *tensor_mib));
    } else if (known != conditions_.tensor_mib.end()) {
        conditions_.tensor_mib.erase(known);
        because(fmt::format("{} has enough memory again", device));
    }
}

void MovePolicy::another_process(const std::string& device) {
    conditions_.slowness.erase(device);
    conditions_.tensor_mib.erase(device);
}

MovePolicy::Look MovePolicy::take(std::uint64_t step) {
    Look look{fmt::format("{}", fmt::join(reasons_, "; ")), must_, memory_};
    reasons_.clear();
    must_ = memory_ = false;
    next_step_ = step + options_.cooldown_steps;
    return look;
}

Result<MovePolicy::Weighed> MovePolicy::weigh(ClusterPlanner& planner, const Plan& current,
                                              const Plan& candidate, double bytes,
                                              std::uint64_t remaining_steps) const {
    Weighed out;
    ECOPIPE_ASSIGN_OR_RETURN(out.offer.current_step_ms, planner.step_ms(current, conditions_));
    ECOPIPE_ASSIGN_OR_RETURN(out.offer.candidate_step_ms, planner.step_ms(candidate, conditions_));
    out.offer.remaining_steps = remaining_steps;
    out.offer.bytes = bytes;
    out.offer.slowest_mbps = planner.slowest_mbps();
    out.offer.fixed_ms = options_.fixed_ms;
    out.pays = weigh_move(out.offer).pays;
    return out;
}

}  // namespace ecopipe
