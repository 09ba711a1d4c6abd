#include "orchestrator/session/member_book.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/log.h"
#include "transport/limits.h"
#include "transport/wire/codec.h"

namespace ecopipe {

MemberBook::MemberBook(ControlPort& port, std::uint64_t run, MemberRules rules)
    : port_(port), run_(run), rules_(std::move(rules)), liveness_(rules_.limits) {}

template <class Message>
bool MemberBook::send_over(std::string_view connection, FrameHeader header,
                           const Message& message) {
    header.run = run_;
    header.type = static_cast<std::uint16_t>(Message::kType);
    encode_into(message, body_);
    return port_.send(connection, header, body_);
}

bool MemberBook::ping(const Member& member, Instant now) {
    return send_over(member.connection, {}, Ping{now.time_since_epoch().count()});
}

void MemberBook::tick(Instant now, Instant due) {
    if (closed_) return;
    if (const Duration away = time_not_run(now, due); away > Duration::zero()) {
        log_debug("this process did not run for {:.1f} s", to_ms(away) / 1000);
        liveness_.observer_was_away(now, away);
    }
    std::vector<std::string> gone;
    for (const auto& [device, member] : members_)
        if (!ping(member, now)) gone.push_back(device);
    for (const std::string& device : gone) lose(device, "its connection is gone");
    for (const Suspect& suspect : liveness_.suspects(now)) lose(suspect.device, suspect.how);
    if (const auto idle = liveness_.stalled(now))
        port_.tell(portal_event::Stalled{
            fmt::format("nothing was finished for {:.1f} s", to_ms(*idle) / 1000)});
}

bool MemberBook::send(const std::string& device, std::uint64_t instance, FrameHeader header,
                      const PortalMessage& message) {
    const auto member = members_.find(device);
    if (member == members_.end() || member->second.instance != instance) return false;
    return std::visit(
        [&](const auto& body) { return send_over(member->second.connection, header, body); },
        message);
}

void MemberBook::strike(const std::string& device) {
    const auto member = members_.find(device);
    names_by_connection_.erase(member->second.connection);
    members_.erase(member);
    liveness_.left(device);
}

void MemberBook::lose(const std::string& device, std::string how) {
    const auto member = members_.find(device);
    if (member == members_.end()) return;
    if (const std::string seen = liveness_.last_seen_at(device); !seen.empty()) how += "; " + seen;
    lost_connections_[member->second.connection] = how;
    strike(device);
    claims_.settled(device);
    port_.tell(portal_event::Lost{device, std::move(how)});
}

void MemberBook::forget(const std::string& device, std::uint64_t instance) {
    const auto member = members_.find(device);
    if (member != members_.end() && member->second.instance == instance) strike(device);
}

void MemberBook::refuse(std::string_view connection, ExitCode code, const std::string& reason) {
    static_cast<void>(send_over(connection, {}, Refuse{static_cast<std::uint8_t>(code), reason}));
}

bool MemberBook::may_take_over(const Hello& hello, std::string_view from, Instant now) {
    const std::string& device = hello.device;
    const Member& holder = members_.at(device);
    if (holder.instance == hello.instance) {  // the same process, over a new connection
        lose(device, "it dialled again");
        return true;
    }
    const auto verdict = claims_.asked(device, from, now);
    if (!ping(holder, now)) {
        lose(device, "its connection is gone");
        return true;
    }
    if (verdict == NameClaims::Verdict::kTaken)
        refuse(from, ExitCode::kUsage,
               fmt::format("a device named {} has already joined from {}, and answers", device,
                           holder.address.empty() ? "elsewhere" : holder.address));
    return false;  // until that is certain the newcomer knocks on
}

void MemberBook::on_hello(const ControlMessage& message, Instant now) {
    if (closed_) return;
    const auto hello = decode<Hello>(message.body);
    if (!hello) {
        port_.tell_of_stranger(fmt::format("control port: a bad Hello from {}: {}", message.address,
                                           hello.error().message));
        return;
    }
    const std::string& device = hello->device;
    if (!port_.speaks_for(message.connection, device)) {
        port_.tell_of_stranger(fmt::format("control port: {} says it is {}, its key is another's",
                                           message.address, printable(device)));
        refuse(message.connection, ExitCode::kMismatch,
               fmt::format("its key is not the one of {}", printable(device)));
        return;
    }
    const Welcome welcome{static_cast<std::uint32_t>(to_ms(rules_.ping_interval)),
                          static_cast<std::uint32_t>(to_ms(rules_.limits.silence_max))};
    if (const auto member = members_.find(device); member != members_.end()) {
        if (member->second.connection == message.connection) {
            static_cast<void>(send_over(message.connection, {}, welcome));
            return;
        }
        if (!may_take_over(*hello, message.connection, now)) return;
    }
    if (!rules_.allowed.contains(device)) {
        refuse(message.connection, ExitCode::kUsage,
               fmt::format("no device of the cluster is named {}; it has {}", printable(device),
                           fmt::join(rules_.allowed, ", ")));
        return;
    }
    if (hello->program_version != rules_.version) {
        refuse(message.connection, ExitCode::kMismatch,
               fmt::format("version {} cannot join version {}", printable(hello->program_version),
                           rules_.version));
        return;
    }
    port_.admitted(message.connection, device);
    members_[device] = {std::string(message.connection), std::string(message.address),
                        hello->instance};
    claims_.settled(device);
    names_by_connection_[std::string(message.connection)] = device;
    liveness_.joined(device, now);
    static_cast<void>(send_over(message.connection, {}, welcome));
    port_.tell(portal_event::Joined{device, *hello, std::string(message.address)});
}

void MemberBook::on_pong(const std::string& device, const Pong& pong, Instant now) {
    const Instant sent{Duration(pong.echo_ns)};
    claims_.answered(device, sent);
    liveness_.pong(device, sent, now, pong.local_ns,
                   {pong.progress, Duration(pong.busy_ns), Duration(pong.longest_ns), pong.step,
                    pong.micro_batch});
}

void MemberBook::heard(const ControlMessage& message, Instant now) {
    const auto type = static_cast<MessageType>(message.header.type);
    if (type == MessageType::kHello) {
        on_hello(message, now);
        return;
    }
    if (message.header.run != run_) return;
    const auto known = names_by_connection_.find(message.connection);
    if (known == names_by_connection_.end()) {
        if (const auto lost = lost_connections_.find(message.connection);
            lost != lost_connections_.end() && !closed_)
            refuse(message.connection, ExitCode::kUnreachable, "taken for lost: " + lost->second);
        return;
    }
    const std::string device = known->second;
    liveness_.heard(device, now);
    if (type == MessageType::kPong) {
        if (const auto pong = decode<Pong>(message.body)) on_pong(device, *pong, now);
        return;
    }
    const std::shared_ptr<Backlog> backlog = members_.at(device).backlog;
    if (backlog->messages >= kControlBacklogMessages ||
        backlog->bytes + message.body.size() > kControlBacklogBytes) {
        lose(device, "it sends more than can be handled");
        return;
    }
    ++backlog->messages;
    backlog->bytes += message.body.size();
    port_.tell(portal_event::Message{
        device, message.header, {message.body.begin(), message.body.end()}, backlog});
}

}  // namespace ecopipe
