#include "orchestrator/session/cluster_session.h"

#include <algorithm>
#include <random>
#include <utility>

#include "core/command_line.h"
#include "transport/security/key_ring.h"

namespace ecopipe {
namespace {

constexpr auto kEndLinger = std::chrono::milliseconds(300);  // for the last word to leave

std::uint64_t fresh_run_id() {
    std::random_device device;  // an id only: nothing of the training depends on it
    const std::uint64_t id = (std::uint64_t{device()} << 32) | device();
    return id == 0 ? 1 : id;
}

}  // namespace

ClusterSession::ClusterSession(NetLoop& loop, SessionOptions options)
    : PortalDriver(static_cast<PortalSide&>(*this), options.portal),
      options_(std::move(options)),
      run_(fresh_run_id()),
      loop_(loop) {}

ClusterSession::~ClusterSession() {
    if (!ended_) end(ExitCode::kRunFailed, "the portal ended the run");
    data_.reset();
    members_.reset();
}

Result<std::unique_ptr<ClusterSession>> ClusterSession::open(NetLoop& loop,
                                                             SessionOptions options) {
    std::unique_ptr<ClusterSession> session(new ClusterSession(loop, std::move(options)));
    ECOPIPE_RETURN_IF_ERROR(session->bind());
    return session;
}

Result<void> ClusterSession::bind() {
    MemberRules rules;
    rules.allowed = {options_.devices.begin(), options_.devices.end()};
    rules.version = kVersion;
    rules.limits.silence_max = from_ms(options_.peer_timeout_s * 1000);
    rules.ping_interval = std::min<Duration>(rules.limits.silence_max / 10, rules.ping_interval);
    members_ = std::make_unique<Membership>(loop_, inbox_, run_, options_.bind, std::move(rules));
    data_ = std::make_unique<DataPlane>(
        loop_, kPortalPeer,
        DataPlane::Callbacks{[this](Delivery delivery) { inbox_.push(std::move(delivery)); },
                             [this](const std::string& peer, std::uint64_t instance) {
                                 inbox_.push(portal_event::Attached{peer, instance});
                             },
                             [this] { members_->progressed(); },
                             [this] { inbox_.push(portal_event::RoomMade{}); }});
    data_->set_run(run_, run_);
    data_->set_security(options_.security);
    data_->emulate(options_.links, EmulatedLink{});
    set_channels(*data_);
    bound_ = options_.bind;
    ECOPIPE_ASSIGN_OR_RETURN(bound_.port, members_->bind());
    set_join_address(bound_.text());
    return {};
}

std::vector<LostProcess> ClusterSession::ended_processes() {
    return options_.ended_processes ? options_.ended_processes() : std::vector<LostProcess>();
}

void ClusterSession::send(const std::string& device, std::uint64_t instance, FrameHeader header,
                          PortalMessage message) {
    members_->send(device, instance, header, message);
}

std::vector<Introduction> ClusterSession::keys_of(const std::vector<std::string>& devices) {
    return loop_.call([&] {
        std::vector<Introduction> known;
        if (KeyRing* keys = loop_.keys())
            for (const std::string& device : devices)
                if (const auto key = keys->find(device)) known.push_back({device, key->text()});
        return known;
    });
}

void ClusterSession::end(ExitCode code, const std::string& reason) {
    ended_ = true;
    if (!members_) return;  // never bound
    PortalDriver::end(code, reason);
    members_->close();
    // The sockets linger on close; this lets the network thread hand the words over first.
    const Instant deadline = monotonic_now() + kEndLinger;
    while (inbox_.pop_until(deadline)) {
    }
}

}  // namespace ecopipe
