#include "orchestrator/session/membership.h"

#include "core/log.h"
#include "transport/security/key_ring.h"

namespace ecopipe {

Membership::Membership(NetLoop& loop, Inbox<PortalEvent>& inbox, std::uint64_t run, Endpoint bind,
                       MemberRules rules)
    : loop_(loop),
      inbox_(inbox),
      address_(std::move(bind)),
      ping_interval_(rules.ping_interval),
      book_(static_cast<ControlPort&>(*this), run, std::move(rules)) {}

Membership::~Membership() {
    loop_.call([this] {
        lifeline_.reset();
        socket_.reset();
    });
}

Result<std::uint16_t> Membership::bind() {
    return loop_.call([this]() -> Result<std::uint16_t> {
        auto socket = MessageSocket::bind(
            loop_, address_,
            [this](const Incoming& message) {
                book_.heard({message.from, message.address, message.header, message.body},
                            monotonic_now());
            },
            [this](std::string_view from, const Error& error) {
                log_warn("control port: {}", error.message);
                if (error.code == ExitCode::kMismatch)
                    book_.refuse(from, ExitCode::kMismatch, "another protocol");
            },
            "control");
        if (!socket) return tl::unexpected<Error>(socket.error());
        socket_ = std::move(*socket);
        tick(monotonic_now());
        return socket_->port();
    });
}

void Membership::tick(Instant due) {
    const Instant now = monotonic_now();
    book_.tick(now, due);
    const Instant next = now + ping_interval_;
    loop_.at(next, lifeline_, [this, next] { tick(next); });
}

void Membership::send(const std::string& device, std::uint64_t instance, FrameHeader header,
                      const PortalMessage& message) {
    loop_.call([&] { static_cast<void>(book_.send(device, instance, header, message)); });
}

void Membership::forget(const std::string& device, std::uint64_t instance) {
    loop_.call([&] { book_.forget(device, instance); });
}

void Membership::declare_lost(const std::string& device, const std::string& how) {
    loop_.call([&] { book_.lose(device, how); });
}

void Membership::work_due(bool due) {
    loop_.post([this, due] { book_.work_due(due, monotonic_now()); });
}

std::int64_t Membership::clock_offset_ns(const std::string& device) {
    return loop_.call([&] { return book_.clock_offset_ns(device); });
}

void Membership::close() {
    loop_.call([this] { book_.close(); });
}

void Membership::admitted(std::string_view connection, const std::string& device) {
    if (is_own(connection)) loop_.keys()->introduce_own(device);
}

}  // namespace ecopipe
