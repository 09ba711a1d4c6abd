#include "transport/net/sim_network.h"

#include <algorithm>

namespace ecopipe {

SimMessage sealed_message(std::string from, std::uint64_t connection, FrameHeader header,
                          std::string body, std::string payload) {
    SimMessage out{std::move(from), connection, {}, std::move(body), std::move(payload)};
    const auto sealed = seal(header, out.body, out.payload.size());
    out.header.assign(reinterpret_cast<const char*>(sealed.data()), sealed.size());
    return out;
}

Result<FrameHeader> SimMessage::open() const {
    std::vector<std::span<const std::byte>> frames{std::as_bytes(std::span(header)),
                                                   std::as_bytes(std::span(body))};
    if (!payload.empty()) frames.push_back(std::as_bytes(std::span(payload)));
    return open_frames(frames);
}

std::uint64_t SimNetwork::life_of(const std::string& node) const {
    const auto found = nodes_.find(node);
    return found == nodes_.end() ? 0 : found->second.life;
}

void SimNetwork::start(const std::string& node, Handler handler) {
    nodes_[node] = {std::move(handler), ++lives_, 0, false, {}};
}

void SimNetwork::crash(const std::string& node) {
    const auto found = nodes_.find(node);
    if (found == nodes_.end()) return;
    if (rng_.below(2) == 0) cut_.insert({node, found->second.connection});
    nodes_.erase(found);
}

void SimNetwork::dial(const std::string& node, std::uint64_t connection) {
    nodes_.at(node).connection = connection;
}

bool SimNetwork::is_open(const std::string& node, std::uint64_t connection,
                         const std::string& seen_by) const {
    const auto found = nodes_.find(node);
    return (found != nodes_.end() && found->second.connection == connection) ||
           cut_.contains({node, connection}) || parted_.contains(std::minmax(node, seen_by));
}

void SimNetwork::hang(const std::string& node) {
    if (const auto found = nodes_.find(node); found != nodes_.end()) found->second.hangs = true;
}

void SimNetwork::wake(const std::string& node) {
    const auto found = nodes_.find(node);
    if (found == nodes_.end() || !found->second.hangs) return;
    found->second.hangs = false;
    const std::uint64_t life = found->second.life;
    for (auto& task : std::exchange(found->second.waiting, {})) run_on(node, life, std::move(task));
}

void SimNetwork::run_on(const std::string& node, std::uint64_t life, std::function<void()> task) {
    if (node.empty()) {
        task();
        return;
    }
    const auto found = nodes_.find(node);
    if (found == nodes_.end() || found->second.life != life) return;
    if (found->second.hangs) {
        found->second.waiting.push_back(std::move(task));
    } else {
        task();
    }
}

void SimNetwork::send(const std::string& to, SimMessage message) {
    const auto span = static_cast<double>((faults.delay_max - faults.delay_min).count());
    Duration delay = faults.delay_min + Duration(static_cast<std::int64_t>(rng_.uniform() * span));
    const bool straggles = rng_.uniform() < faults.straggling;
    if (straggles)
        delay += Duration(static_cast<std::int64_t>(
            rng_.uniform() * static_cast<double>(faults.straggle_max.count())));
    if (faults.mbps > 0)
        delay += from_ms(static_cast<double>(message.payload.size()) * 8 / (faults.mbps * 1000));
    // Control and data are connections of their own: neither waits for the other.
    const auto head = message.open();
    const bool data = head && head->type >= static_cast<std::uint16_t>(MessageType::kAttach) &&
                      head->type <= static_cast<std::uint16_t>(MessageType::kAttached);
    const bool lost = rng_.uniform() < faults.loss;
    const bool overtakes = rng_.uniform() < faults.reordering;
    if (rng_.uniform() < faults.corruption) {
        std::string& part =
            message.body.empty() || rng_.below(2) == 0 ? message.header : message.body;
        part[rng_.below(part.size())] ^= static_cast<char>(1U << rng_.below(8));
    }
    if (lost || parted_.contains(std::minmax(message.from, to))) return;
    Instant arrival = now_ + delay;
    Instant& last = last_arrival_[{data ? message.from + " data" : message.from, to}];
    if (!overtakes) arrival = std::max(arrival, last);
    if (!straggles) last = std::max(last, arrival);
    const std::uint64_t life = life_of(to);
    events_.push({arrival, ++order_, to, life, [this, to, message = std::move(message)] {
                      if (!parted_.contains(std::minmax(message.from, to)))
                          nodes_.at(to).handler(message);
                  }});
}

void SimNetwork::at(Instant when, const std::string& node, std::function<void()> task) {
    events_.push({std::max(when, now_), ++order_, node, life_of(node), std::move(task)});
}

bool SimNetwork::advance(Instant end) {
    if (events_.empty() || events_.top().when > end) return false;
    Event event = events_.top();
    events_.pop();
    now_ = std::max(now_, event.when);
    run_on(event.node, event.life, std::move(event.task));
    return true;
}

}  // namespace ecopipe
