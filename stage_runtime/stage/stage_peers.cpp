#include "stage_runtime/stage/stage_peers.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ecopipe {

StagePeers::StagePeers(TensorChannels& channels, std::uint16_t data_port, Duration tick)
    : channels_(channels), data_port_(data_port), tick_(tick) {}

void StagePeers::clear() {
    peers_.clear();
    attached_.clear();
    loading_.reset();
}

void StagePeers::attached(const std::string& peer, std::uint64_t instance) {
    attached_[peer] = instance;
}

bool StagePeers::is_attached(const std::string& peer) const { return attached_.contains(peer); }

bool StagePeers::stands(const std::string& peer) const {
    const auto attached = attached_.find(peer);
    if (attached == attached_.end()) return false;
    if (peer == kPortalPeer) return true;
    return std::any_of(peers_.begin(), peers_.end(), [&](const PeerAddress& known) {
        return known.device == peer && known.instance == attached->second;
    });
}

// Channels of an earlier plan stay; only those that do not stand yet are waited for.
void StagePeers::configure(std::vector<PeerAddress> peers, std::uint32_t generation, Instant now) {
    peers_ = std::move(peers);
    const std::set<std::string> keep = with_portal();
    channels_.keep_only({keep.begin(), keep.end()}, generation);
    std::erase_if(attached_, [&](const auto& entry) { return !keep.contains(entry.first); });
    // One that was dialled may have been cut since.
    for (const PeerAddress& peer : peers_)
        if (peer.dial && !channels_.connected(peer.device)) attached_.erase(peer.device);
    loading_ = Loading{now, now, std::nullopt, now + tick_};
}

std::set<std::string> StagePeers::with_portal() const {
    std::set<std::string> all{kPortalPeer};
    for (const PeerAddress& peer : peers_) all.insert(peer.device);
    return all;
}

std::set<std::string> StagePeers::missing() const {
    std::set<std::string> missing = with_portal();
    std::erase_if(missing, [&](const std::string& peer) { return stands(peer); });
    return missing;
}

Result<void> StagePeers::dial() {
    for (const PeerAddress& peer : peers_) {
        if (!peer.dial) continue;
        ECOPIPE_ASSIGN_OR_RETURN(const Endpoint endpoint,
                                 parse_endpoint(peer.endpoint, "peer " + peer.device));
        ECOPIPE_RETURN_IF_ERROR(channels_.dial(peer.device, endpoint, peer.instance));
    }
    return {};
}

std::vector<std::string> StagePeers::unreached() const {
    std::vector<std::string> devices;
    for (const PeerAddress& peer : peers_)
        if (!stands(peer.device)) devices.push_back(peer.device);
    return devices;
}

std::optional<StagePeers::Overdue> StagePeers::look(Instant now, std::uint64_t progress) {
    if (!loading_) return std::nullopt;
    // A time in which this process did not run says nothing of the others.
    const Duration away = time_not_run(now, loading_->look_due);
    loading_->since += away;
    loading_->moved += away;
    loading_->look_due = now + tick_;
    if (std::exchange(loading_->progress, progress) != progress) loading_->moved = now;
    std::vector<std::string> late;
    if (now - loading_->since > kReachWait) late = unreached();
    if (!late.empty()) {
        if (std::exchange(loading_->told, true)) return std::nullopt;
        return Overdue{std::move(late), problem()};
    }
    if (now - loading_->moved <= kLoadTimeout) return std::nullopt;
    return Overdue{{}, problem()};
}

std::string StagePeers::problem() const {
    for (const PeerAddress& peer : peers_)
        if (!stands(peer.device))
            return peer.dial ? fmt::format("device {} cannot be reached at {}", peer.device,
                                           peer.endpoint)
                             : fmt::format("device {} did not dial this one's data port {}",
                                           peer.device, data_port_);
    if (!attached_.contains(kPortalPeer))
        return fmt::format("the portal did not dial this device's data port {}", data_port_);
    return "";
}

}  // namespace ecopipe
