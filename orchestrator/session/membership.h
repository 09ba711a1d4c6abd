#pragma once
// The control port of a portal: who may join, who has, who is lost. The adapter between sockets and
// the session.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/inbox.h"
#include "orchestrator/session/liveness.h"
#include "orchestrator/session/name_claims.h"
#include "orchestrator/session/portal_event.h"
#include "transport/net/message_socket.h"
#include "transport/wire/messages.h"

namespace ecopipe {

struct MembershipOptions {
    Endpoint bind;
    std::set<std::string> allowed;  // device names of the cluster
    Duration ping_interval = std::chrono::milliseconds(250);
    LivenessLimits limits;
};

class Membership {
  public:
    Membership(NetLoop& loop, Inbox<PortalEvent>& inbox, std::uint64_t run,
               MembershipOptions options);
    ~Membership();
    [[nodiscard]] Result<std::uint16_t> bind();  // the port

    // Any thread; false when the device has not joined as this instance or its connection is gone.
    template <class Body>
    bool send(const std::string& device, std::uint64_t instance, FrameHeader header,
              const Body& body) {
        return loop_.call(
            [&] { return is_member(device, instance) && send_now(device, header, body); });
    }
    [[nodiscard]] std::int64_t clock_offset_ns(const std::string& device);
    // Answers are due from now on, or no more; every call counts as progress.
    void work_due(bool due);
    // Network thread: bytes of a tensor have come, which is progress too.
    void progressed() { liveness_.progressed(monotonic_now()); }
    // A device that left or failed by its own word: no Lost is told.
    void forget(const std::string& device, std::uint64_t instance);
    // One that is known to be gone from elsewhere is lost now.
    void declare_lost(const std::string& device, const std::string& how);
    // The run is over: nobody joins any more and nobody is lost. A stage that stays knocks on for
    // the next portal.
    void close();

  private:
    struct Member {
        std::string routing_id;
        Hello hello;
        std::string address;
        std::shared_ptr<Backlog> backlog = std::make_shared<Backlog>();
    };
    template <class Body>
    bool send_now(const std::string& device, FrameHeader header, const Body& body) {
        const auto member = members_.find(device);
        if (member == members_.end()) return false;
        header.run = run_;
        return socket_->send(member->second.routing_id, header, body);
    }
    [[nodiscard]] bool is_member(const std::string& device, std::uint64_t instance) const {
        const auto member = members_.find(device);
        return member != members_.end() && member->second.hello.instance == instance;
    }
    void on_message(const Incoming& message);
    void on_hello(const Incoming& message);
    void refuse(std::string_view to, ExitCode code, const std::string& reason);
    // The connection `from` says it is a device that another one holds: whether it may be.
    [[nodiscard]] bool may_take_over(const Hello& hello, std::string_view from);
    void ping();
    void lose(const std::string& device, std::string how);

    NetLoop& loop_;
    Lifeline lifeline_ = make_lifeline();
    Inbox<PortalEvent>& inbox_;
    std::uint64_t run_;
    MembershipOptions options_;
    std::unique_ptr<MessageSocket> socket_;
    std::map<std::string, Member> members_;
    std::map<std::string, std::string, std::less<>> names_by_routing_id_;
    Liveness liveness_;
    NameClaims claims_;
    std::map<std::string, std::string, std::less<>>
        lost_routing_ids_;  // that may be heard again, and why lost
    Instant ping_due_{};
    bool closed_ = false;
};

}  // namespace ecopipe
