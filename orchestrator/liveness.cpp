#include "orchestrator/liveness.h"

namespace ecopipe {

void Liveness::heard(const std::string& device, Instant now) {
    if (const auto it = devices_.find(device); it != devices_.end()) it->second.last_heard = now;
}

void Liveness::pong(const std::string& device, Instant sent, Instant now, std::int64_t remote_ns) {
    const auto it = devices_.find(device);
    if (it == devices_.end() || now < sent) return;
    const Duration round_trip = now - sent;
    if (round_trip > it->second.best_round_trip) return;
    it->second.best_round_trip = round_trip;
    it->second.offset_ns = (sent + round_trip / 2).time_since_epoch().count() - remote_ns;
}

std::vector<std::string> Liveness::silent(Instant now) {
    std::vector<std::string> out;
    for (auto& [device, state] : devices_) {
        if (state.reported || now - state.last_heard <= silence_max_) continue;
        state.reported = true;
        out.push_back(device);
    }
    return out;
}

std::int64_t Liveness::clock_offset_ns(const std::string& device) const {
    const auto it = devices_.find(device);
    return it == devices_.end() ? 0 : it->second.offset_ns;
}

}  // namespace ecopipe
