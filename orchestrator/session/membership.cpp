#include "orchestrator/session/membership.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/command_line.h"
#include "core/log.h"
#include "transport/security/key_ring.h"

namespace ecopipe {

Membership::Membership(NetLoop& loop, Inbox<PortalEvent>& inbox, std::uint64_t run,
                       MembershipOptions options)
    : loop_(loop),
      inbox_(inbox),
      run_(run),
      options_(std::move(options)),
      liveness_(options_.limits) {}

Membership::~Membership() {
    loop_.call([this] {
        lifeline_.reset();
        socket_.reset();
    });
}

Result<std::uint16_t> Membership::bind() {
    return loop_.call([this]() -> Result<std::uint16_t> {
        auto socket = MessageSocket::bind(
            loop_, options_.bind, [this](const Incoming& message) { on_message(message); },
            [this](std::string_view from, const Error& error) {
                log_warn("control port: {}", error.message);
                if (error.code == ExitCode::kMismatch)
                    refuse(from, ExitCode::kMismatch, "another protocol");
            },
            "control");
        if (!socket) return tl::unexpected<Error>(socket.error());
        socket_ = std::move(*socket);
        ping_due_ = monotonic_now();
        ping();
        return socket_->port();
    });
}

void Membership::ping() {
    if (closed_) return;
    const Instant now = monotonic_now();
    if (const Duration away = time_not_run(now, ping_due_); away > Duration::zero()) {
        log_debug("this process did not run for {:.1f} s", to_ms(away) / 1000);
        liveness_.observer_was_away(now, away);
    }
    ping_due_ = now + options_.ping_interval;
    std::vector<std::string> gone;
    for (const auto& [device, member] : members_)
        if (!send_now(device, {}, Ping{now.time_since_epoch().count()})) gone.push_back(device);
    for (const std::string& device : gone) lose(device, "its connection is gone");
    for (const Suspect& suspect : liveness_.suspects(now)) lose(suspect.device, suspect.how);
    if (const auto idle = liveness_.stalled(now))
        inbox_.push(portal_event::Stalled{
            fmt::format("nothing was finished for {:.1f} s", to_ms(*idle) / 1000)});
    loop_.at(ping_due_, lifeline_, [this] { ping(); });
}

void Membership::lose(const std::string& device, std::string how) {
    const auto member = members_.find(device);
    if (member == members_.end()) return;
    if (const std::string seen = liveness_.last_seen_at(device); !seen.empty()) how += "; " + seen;
    lost_routing_ids_[member->second.routing_id] = how;
    names_by_routing_id_.erase(member->second.routing_id);
    members_.erase(member);
    liveness_.left(device);
    claims_.settled(device);
    inbox_.push(portal_event::Lost{device, std::move(how)});
}

void Membership::forget(const std::string& device, std::uint64_t instance) {
    loop_.call([&] {
        if (!is_member(device, instance)) return;
        const auto member = members_.find(device);
        names_by_routing_id_.erase(member->second.routing_id);
        members_.erase(member);
        liveness_.left(device);
    });
}

void Membership::declare_lost(const std::string& device, const std::string& how) {
    loop_.call([&] { lose(device, how); });
}

void Membership::work_due(bool due) {
    loop_.post([this, due] { liveness_.work_due(due, monotonic_now()); });
}

bool Membership::may_take_over(const Hello& hello, std::string_view from) {
    const Instant now = monotonic_now();
    const std::string& device = hello.device;
    const Member& holder = members_.at(device);
    if (holder.hello.instance == hello.instance) {  // the same process, over a new connection
        lose(device, "it dialled again");
        return true;
    }
    const auto verdict = claims_.asked(device, from, now);
    if (!send_now(device, {}, Ping{now.time_since_epoch().count()})) {
        lose(device, "its connection is gone");
        return true;
    }
    if (verdict == NameClaims::Verdict::kTaken)
        refuse(from, ExitCode::kUsage,
               fmt::format("a device named {} has already joined from {}, and answers", device,
                           holder.address.empty() ? "elsewhere" : holder.address));
    return false;  // until that is certain the newcomer knocks on
}

void Membership::close() {
    loop_.call([this] { closed_ = true; });
}

std::int64_t Membership::clock_offset_ns(const std::string& device) {
    return loop_.call([&] { return liveness_.clock_offset_ns(device); });
}

void Membership::refuse(std::string_view to, ExitCode code, const std::string& reason) {
    FrameHeader header;
    header.run = run_;
    static_cast<void>(socket_->send(to, header, Refuse{static_cast<std::uint8_t>(code), reason}));
}

void Membership::on_hello(const Incoming& message) {
    if (closed_) return;
    const auto hello = decode<Hello>(message.body);
    if (!hello) {
        loop_.strangers().tell(fmt::format("control port: a bad Hello from {}: {}", message.address,
                                           hello.error().message));
        return;
    }
    const std::string& device = hello->device;
    if (!speaks_for(message.from, device)) {
        loop_.strangers().tell(fmt::format("control port: {} says it is {}, its key is another's",
                                           message.address, printable(device)));
        refuse(message.from, ExitCode::kMismatch,
               fmt::format("its key is not the one of {}", printable(device)));
        return;
    }
    FrameHeader header;
    header.run = run_;
    const Welcome welcome{static_cast<std::uint32_t>(to_ms(options_.ping_interval)),
                          static_cast<std::uint32_t>(to_ms(options_.limits.silence_max))};
    if (const auto member = members_.find(device); member != members_.end()) {
        if (member->second.routing_id == message.from) {
            static_cast<void>(socket_->send(message.from, header, welcome));
            return;
        }
        if (!may_take_over(*hello, message.from)) return;
    }
    if (!options_.allowed.contains(device)) {
        refuse(message.from, ExitCode::kUsage,
               fmt::format("no device of the cluster is named {}; it has {}", printable(device),
                           fmt::join(options_.allowed, ", ")));
        return;
    }
    if (hello->program_version != kVersion) {
        refuse(message.from, ExitCode::kMismatch,
               fmt::format("version {} cannot join version {}", printable(hello->program_version),
                           kVersion));
        return;
    }
    if (is_own(message.from)) loop_.keys()->introduce_own(device);
    members_[device] = {std::string(message.from), *hello, std::string(message.address)};
    claims_.settled(device);
    names_by_routing_id_[std::string(message.from)] = device;
    liveness_.joined(device, monotonic_now());
    static_cast<void>(socket_->send(message.from, header, welcome));
    inbox_.push(portal_event::Joined{device, *hello, std::string(message.address)});
}

void Membership::on_message(const Incoming& message) {
    const auto type = static_cast<MessageType>(message.header.type);
    if (type == MessageType::kHello) {
        on_hello(message);
        return;
    }
    const auto known = names_by_routing_id_.find(message.from);
    if (message.header.run != run_) return;
    if (known == names_by_routing_id_.end()) {
        if (const auto lost = lost_routing_ids_.find(message.from);
            lost != lost_routing_ids_.end() && !closed_)
            refuse(message.from, ExitCode::kUnreachable, "taken for lost: " + lost->second);
        return;
    }
    const Instant now = monotonic_now();
    liveness_.heard(known->second, now);
    if (type == MessageType::kPong) {
        if (const auto pong = decode<Pong>(message.body)) {
            claims_.answered(std::string(known->second), Instant(Duration(pong->echo_ns)));
            liveness_.pong(known->second, Instant(Duration(pong->echo_ns)), now, pong->local_ns,
                           {pong->progress, Duration(pong->busy_ns), Duration(pong->longest_ns),
                            pong->step, pong->micro_batch});
        }
        return;
    }
    Backlog& backlog = *members_.at(known->second).backlog;
    if (backlog.messages >= kControlBacklogMessages ||
        backlog.bytes + message.body.size() > kControlBacklogBytes) {
        lose(std::string(known->second), "it sends more than can be handled");
        return;
    }
    ++backlog.messages;
    backlog.bytes += message.body.size();
    inbox_.push(portal_event::Message{known->second,
                                      message.header,
                                      {message.body.begin(), message.body.end()},
                                      members_.at(known->second).backlog});
}

}  // namespace ecopipe
