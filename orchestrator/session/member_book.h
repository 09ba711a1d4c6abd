#pragma once
// All that a control port decides: who may join, who has, who is lost. Pure: connections are names,
// time is an argument, messages leave through ControlPort.

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "orchestrator/session/liveness.h"
#include "orchestrator/session/name_claims.h"
#include "orchestrator/session/portal_event.h"
#include "orchestrator/session/portal_side.h"

namespace ecopipe {

// What the book stands on. A connection's name is of that connection, or of the next of the same
// key: nobody else can take it over.
class ControlPort {
  public:
    ControlPort() = default;
    ControlPort(const ControlPort&) = delete;
    ControlPort& operator=(const ControlPort&) = delete;
    virtual ~ControlPort() = default;

    // False when the connection is gone, or takes nothing more: nothing was sent.
    [[nodiscard]] virtual bool send(std::string_view connection, const FrameHeader& header,
                                    const std::string& body) = 0;
    virtual void tell(PortalEvent event) = 0;
    // What somebody tried who is no device of ours, for the log.
    virtual void tell_of_stranger(const std::string& what) = 0;
    // Its key is that name's; without keys anybody's is.
    [[nodiscard]] virtual bool speaks_for(std::string_view connection, std::string_view device) = 0;
    // The device has joined over it.
    virtual void admitted(std::string_view connection, const std::string& device) = 0;
};

struct MemberRules {
    std::set<std::string> allowed;  // device names of the cluster
    std::string version;            // of the program, that all must have
    Duration ping_interval = std::chrono::milliseconds(250);
    LivenessLimits limits;
};

// A message of a device, or of whoever dialled; views live during the call.
struct ControlMessage {
    std::string_view connection;
    std::string_view address;  // the peer's IP address, "" if unknown
    const FrameHeader& header;
    std::span<const std::byte> body;
};

// One thread.
class MemberBook {
  public:
    MemberBook(ControlPort& port, std::uint64_t run, MemberRules rules);

    // To be called every ping_interval: pings all, and tells who is lost and what has stalled.
    // `due` is when it was to be: what this process slept through counts for nobody.
    void tick(Instant now, Instant due);
    void heard(const ControlMessage& message, Instant now);
    // Bytes of a tensor have come, which is progress too.
    void progressed(Instant now) { liveness_.progressed(now); }

    // PortalSide's.
    [[nodiscard]] bool send(const std::string& device, std::uint64_t instance, FrameHeader header,
                            const PortalMessage& message);
    void forget(const std::string& device, std::uint64_t instance);
    void lose(const std::string& device, std::string how);
    void work_due(bool due, Instant now) { liveness_.work_due(due, now); }
    [[nodiscard]] std::int64_t clock_offset_ns(const std::string& device) const {
        return liveness_.clock_offset_ns(device);
    }

    void refuse(std::string_view connection, ExitCode code, const std::string& reason);
    // The run is over: nobody joins any more and nobody is lost. A stage that stays knocks on for
    // the next portal.
    void close() { closed_ = true; }

  private:
    struct Member {
        std::string connection;
        std::string address;
        std::uint64_t instance = 0;
        std::shared_ptr<Backlog> backlog = std::make_shared<Backlog>();
    };
    template <class Message>
    [[nodiscard]] bool send_over(std::string_view connection, FrameHeader header,
                                 const Message& message);
    [[nodiscard]] bool ping(const Member& member, Instant now);
    void on_hello(const ControlMessage& message, Instant now);
    // The connection `from` says it is a device that another one holds: whether it may be.
    [[nodiscard]] bool may_take_over(const Hello& hello, std::string_view from, Instant now);
    void on_pong(const std::string& device, const Pong& pong, Instant now);
    // It is a member no more, and its connection nobody's.
    void strike(const std::string& device);

    ControlPort& port_;
    std::uint64_t run_;
    MemberRules rules_;
    std::map<std::string, Member> members_;
    std::map<std::string, std::string, std::less<>> names_by_connection_;
    Liveness liveness_;
    NameClaims claims_;
    // That may be heard again, and why lost.
    std::map<std::string, std::string, std::less<>> lost_connections_;
    std::string body_;  // of the message being sent: its memory is used again
    bool closed_ = false;
};

}  // namespace ecopipe
