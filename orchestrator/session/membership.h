#pragma once
// The control port of a portal: the book of its members (member_book.h) on a socket, this machine's
// clock and the network thread.

#include <memory>
#include <string>

#include "core/inbox.h"
#include "orchestrator/session/member_book.h"
#include "transport/net/message_socket.h"

namespace ecopipe {

class Membership : private ControlPort {
  public:
    Membership(NetLoop& loop, Inbox<PortalEvent>& inbox, std::uint64_t run, Endpoint bind,
               MemberRules rules);
    ~Membership() override;
    [[nodiscard]] Result<std::uint16_t> bind();  // the port

    // Any thread; PortalSide's.
    void send(const std::string& device, std::uint64_t instance, FrameHeader header,
              const PortalMessage& message);
    void forget(const std::string& device, std::uint64_t instance);
    void declare_lost(const std::string& device, const std::string& how);
    void work_due(bool due);
    [[nodiscard]] std::int64_t clock_offset_ns(const std::string& device);
    void close();
    // Network thread: bytes of a tensor have come, which is progress too.
    void progressed() { book_.progressed(monotonic_now()); }

  private:
    void tick(Instant due);

    bool send(std::string_view connection, const FrameHeader& header,
              const std::string& body) override {
        return socket_->send(connection, header, body);
    }
    void tell(PortalEvent event) override { inbox_.push(std::move(event)); }
    void tell_of_stranger(const std::string& what) override { loop_.strangers().tell(what); }
    bool speaks_for(std::string_view connection, std::string_view device) override {
        return ecopipe::speaks_for(connection, device);
    }
    void admitted(std::string_view connection, const std::string& device) override;

    NetLoop& loop_;
    Lifeline lifeline_ = make_lifeline();
    Inbox<PortalEvent>& inbox_;
    Endpoint address_;
    Duration ping_interval_;
    MemberBook book_;
    std::unique_ptr<MessageSocket> socket_;
};

}  // namespace ecopipe
