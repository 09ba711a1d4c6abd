#include "transport/net/connection_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ecopipe {

bool TokenBucket::take(Instant now) {
    if (last_ != Instant{}) tokens_ += std::max(0.0, to_ms(now - last_) / 1000 * per_second_);
    tokens_ = std::min(tokens_, burst_);
    last_ = now;
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
}

bool ConnectionTable::take_token(const std::string& address, Instant now) {
    const auto known = rates_.find(address);
    if (known != rates_.end()) return known->second.take(now);
    if (rates_.size() == kAddressesMax)
        rates_.erase(std::min_element(rates_.begin(), rates_.end(), [](auto& a, auto& b) {
            return a.second.last_taken() < b.second.last_taken();
        }));
    return rates_.emplace(address, TokenBucket(limits_.burst, limits_.per_second))
        .first->second.take(now);
}

int ConnectionTable::most_crowding() const {
    std::map<std::string_view, std::size_t> silent;
    for (const auto& [descriptor, connection] : connections_)
        if (connection.silent) ++silent[connection.address];
    int found = -1;
    const Connection* worst = nullptr;
    for (const auto& [descriptor, connection] : connections_) {
        if (!connection.silent) continue;
        if (worst != nullptr) {
            const std::size_t most = silent[worst->address];
            const std::size_t here = silent[connection.address];
            if (here < most || (here == most && connection.since >= worst->since)) continue;
        }
        worst = &connection;
        found = descriptor;
    }
    return found;
}

std::optional<ConnectionTable::Rejection> ConnectionTable::accepted(int descriptor,
                                                                    const std::string& address,
                                                                    Instant now) {
    closed(descriptor);  // its end may have been missed
    connections_[descriptor] = {address, {}, now, true, false, 0};
    ++silent_;
    const std::size_t here = ++count_[address];
    if (!take_token(address, now))
        return Rejection{descriptor, address,
                         fmt::format("more than {} connections a second", limits_.per_second)};
    if (here > limits_.per_address)
        return Rejection{descriptor, address,
                         fmt::format("more than {} connections", limits_.per_address)};
    if (connections_.size() > limits_.connections)
        return Rejection{
            descriptor, address,
            fmt::format("more than {} connections of all addresses", limits_.connections)};
    if (silent_ <= limits_.silent) return std::nullopt;
    const int goes = most_crowding();
    return Rejection{goes, connections_.at(goes).address,
                     fmt::format("more than {} connections that say nothing", limits_.silent)};
}

std::string ConnectionTable::closed(int descriptor) {
    const auto known = connections_.find(descriptor);
    if (known == connections_.end()) return {};
    std::string address = std::move(known->second.address);
    if (known->second.silent) --silent_;
    connections_.erase(known);
    if (const auto count = count_.find(address); --count->second == 0) count_.erase(count);
    return address;
}

void ConnectionTable::spoke(int descriptor, std::string_view user) {
    const auto known = connections_.find(descriptor);
    if (known == connections_.end()) return;  // its acceptance is told soon, or it is gone already
    Connection& connection = known->second;
    connection.heard = true;
    if (!connection.silent) return;
    connection.silent = false;
    connection.user = user;
    --silent_;
}

std::vector<int> ConnectionTable::of(const std::string& user) const {
    std::vector<int> found;
    for (const auto& [descriptor, connection] : connections_)
        if (connection.silent || connection.user == user) found.push_back(descriptor);
    return found;
}

bool ConnectionTable::unfinished(int descriptor, std::uint64_t received_bytes) {
    const auto known = connections_.find(descriptor);
    if (known == connections_.end()) return false;
    Connection& connection = known->second;
    if (std::exchange(connection.heard, false)) connection.known = received_bytes;
    return received_bytes > connection.known + kUnfinishedBytesMax;
}

std::vector<int> ConnectionTable::descriptors() const {
    std::vector<int> all;
    for (const auto& [descriptor, connection] : connections_) all.push_back(descriptor);
    return all;
}

std::string ConnectionTable::address(int descriptor) const {
    const auto known = connections_.find(descriptor);
    return known == connections_.end() ? std::string() : known->second.address;
}

}  // namespace ecopipe
