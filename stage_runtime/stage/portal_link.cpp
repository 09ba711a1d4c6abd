#include "stage_runtime/stage/portal_link.h"

#include <fmt/format.h>

#include <map>

#include "core/log.h"

namespace ecopipe {

PortalLink::PortalLink(NetLoop& loop, const ComputeActivity& activity, Callbacks callbacks)
    : loop_(loop),
      callbacks_(std::move(callbacks)),
      contact_(static_cast<ContactSide&>(*this), activity) {}

PortalLink::~PortalLink() {
    hang_up();
    loop_.call([this] { lifeline_.reset(); });
}

Result<void> PortalLink::dial(const Endpoint& portal, const std::string& peer, const Hello& hello) {
    return loop_.call([&]() -> Result<void> {
        auto socket = MessageSocket::dial(
            loop_, portal,
            [this](const Incoming& message) {
                contact_.heard(message.header, message.body, monotonic_now());
            },
            [this, name = portal.text()](std::string_view, const Error& error) {
                log_warn("portal {}: {}", name, error.message);
                if (error.code == ExitCode::kMismatch)
                    contact_.lose(
                        {ExitCode::kMismatch, fmt::format("portal {} {}", name, error.message)});
            },
            peer);
        if (!socket) return tl::unexpected<Error>(socket.error());
        socket_ = std::move(*socket);
        contact_.begin(portal.text(), hello, monotonic_now());
        tick(++attempt_);
        return {};
    });
}

void PortalLink::hang_up() {
    loop_.call([this] {
        ++attempt_;
        socket_.reset();
    });
}

void PortalLink::tick(std::uint64_t attempt_of) {
    if (attempt_of != attempt_) return;
    if (const Instant next = contact_.tick(monotonic_now()); next != Instant::max())
        loop_.at(next, lifeline_, [this, attempt_of] { tick(attempt_of); });
}

void PortalLink::introduce(const Introduce& known) {
    std::map<std::string, PublicKey> peers;
    for (const Introduction& peer : known.peers)
        if (const auto key = parse_key_text(peer.public_key, "portal")) peers[peer.device] = *key;
    loop_.introduce(std::move(peers));
}

}  // namespace ecopipe
