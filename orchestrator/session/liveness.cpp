#include "orchestrator/session/liveness.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/step_number.h"

namespace ecopipe {
namespace {
constexpr double kMeanShare = 1.0 / 8;  // Jacobson's gains
constexpr double kDeviationShare = 1.0 / 4;
constexpr double kDeviations = 8;
}  // namespace

void Liveness::joined(const std::string& device, Instant now) {
    State fresh;
    fresh.last_heard = now;
    devices_[device] = fresh;
}

void Liveness::heard(const std::string& device, Instant now) {
    const auto it = devices_.find(device);
    if (it == devices_.end()) return;
    State& state = it->second;
    const auto gap = static_cast<double>((now - state.last_heard).count());
    state.last_heard = now;
    if (!state.has_gap) {
        state.has_gap = true;
        state.gap_mean_ns = gap;
        state.gap_deviation_ns = gap / 2;
        return;
    }
    state.gap_deviation_ns +=
        kDeviationShare * (std::abs(gap - state.gap_mean_ns) - state.gap_deviation_ns);
    state.gap_mean_ns += kMeanShare * (gap - state.gap_mean_ns);
}

void Liveness::pong(const std::string& device, Instant sent, Instant now, std::int64_t remote_ns,
                    const Activity& activity) {
    const auto it = devices_.find(device);
    if (it == devices_.end() || now < sent) return;
    State& state = it->second;
    if (activity.progress != state.activity.progress) last_progress_ = now;
    state.activity = activity;
    const Duration round_trip = now - sent;
    if (round_trip > state.best_round_trip) return;
    state.best_round_trip = round_trip;
    state.offset_ns = (sent + round_trip / 2).time_since_epoch().count() - remote_ns;
}

Duration Liveness::silence_limit(const State& state) const {
    if (!state.has_gap) return limits_.silence_max;
    const Duration learnt(
        static_cast<std::int64_t>(state.gap_mean_ns + kDeviations * state.gap_deviation_ns));
    return std::clamp(learnt, std::min(limits_.silence_min, limits_.silence_max),
                      limits_.silence_max);
}

Duration Liveness::silence_limit(const std::string& device) const {
    const auto it = devices_.find(device);
    return it == devices_.end() ? limits_.silence_max : silence_limit(it->second);
}

Duration Liveness::action_limit(const State& state) const {
    if (state.activity.longest == Duration::zero()) return limits_.action_unknown;
    const Duration learnt(static_cast<std::int64_t>(
        limits_.action_factor * static_cast<double>(state.activity.longest.count())));
    return std::max(limits_.action_min, learnt);
}

void Liveness::observer_was_away(Instant now, Duration away) {
    // What has come since is not of before.
    for (auto& [device, state] : devices_)
        state.last_heard = std::min<Instant>(now, state.last_heard + away);
    last_progress_ = std::min<Instant>(now, last_progress_ + away);
}

std::vector<Suspect> Liveness::suspects(Instant now) {
    std::vector<Suspect> out;
    for (auto& [device, state] : devices_) {
        if (state.reported) continue;
        const Duration silence = now - state.last_heard;
        if (silence > silence_limit(state)) {
            out.push_back(
                {device, fmt::format("it has said nothing for {:.1f} s", to_ms(silence) / 1000)});
        } else if (state.activity.busy > action_limit(state)) {
            out.push_back(
                {device,
                 fmt::format("it hangs: at {}, micro-batch {}, one action has been computing "
                             "for {:.1f} s, its longest before took {:.3f} s",
                             step_text(state.activity.step + 1), state.activity.micro_batch,
                             to_ms(state.activity.busy) / 1000,
                             to_ms(state.activity.longest) / 1000)});
        } else {
            continue;
        }
        state.reported = true;
    }
    return out;
}

void Liveness::work_due(bool due, Instant now) {
    due_ = due;
    last_progress_ = now;
}

std::optional<Duration> Liveness::stalled(Instant now) {
    if (!due_) return std::nullopt;
    Duration limit = limits_.stall_min;
    for (const auto& [device, state] : devices_) {
        if (state.activity.busy > Duration::zero()) return std::nullopt;  // the action's deadline
        limit = std::max(limit, Duration(static_cast<std::int64_t>(
                                    limits_.action_factor *
                                    static_cast<double>(state.activity.longest.count()))));
    }
    const Duration idle = now - last_progress_;
    if (idle <= limit) return std::nullopt;
    due_ = false;
    return idle;
}

std::int64_t Liveness::clock_offset_ns(const std::string& device) const {
    const auto it = devices_.find(device);
    return it == devices_.end() ? 0 : it->second.offset_ns;
}

std::string Liveness::last_seen_at(const std::string& device) const {
    const auto it = devices_.find(device);
    if (it == devices_.end() || it->second.activity.progress == 0) return "";
    const Activity& activity = it->second.activity;
    return fmt::format("last seen at {}, micro-batch {}", step_text(activity.step + 1),
                       activity.micro_batch);
}

}  // namespace ecopipe
