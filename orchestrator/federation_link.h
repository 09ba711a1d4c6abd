#pragma once
// A cluster's connection to the federation's server: says Hello until welcomed and again after
// silence, answers pings, pulls models, pushes updates. The only place of the client that touches
// the wire.

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "core/inbox.h"
#include "transport/federation_messages.h"
#include "transport/message_socket.h"
#include "transport/messages.h"

namespace ecopipe {

class FederationLink {
  public:
    explicit FederationLink(NetLoop& loop) : loop_(loop) {}
    ~FederationLink();
    FederationLink(const FederationLink&) = delete;
    FederationLink& operator=(const FederationLink&) = delete;

    // Dials and waits for the welcome. `peer`: whose key the server's is, with keys. Errors:
    // kUnreachable after `timeout_s`; what the server refuses with.
    [[nodiscard]] Result<ClusterWelcome> join(const Endpoint& server, const std::string& peer,
                                              const ClusterHello& hello, double timeout_s);
    // The next task. Nothing when the federation has ended well. Errors: kUnreachable when the
    // server has been silent for `timeout_s`; the server's reason when it ended badly.
    [[nodiscard]] Result<std::optional<Task>> next_task(double timeout_s);
    [[nodiscard]] Result<TensorMap> pull_model(const Task& task, double timeout_s);
    // Sends the update and waits for the verdict; sends again after a reconnect.
    [[nodiscard]] Result<Verdict> push_update(const UpdateSlice& slice, const std::string& bytes,
                                              double timeout_s);

  private:
    struct Message {
        MessageType type;
        std::vector<std::byte> body;
        std::vector<std::byte> payload;
    };
    void say_hello();
    void on_message(const Incoming& message);
    // The next message, or an error: an end, a refusal, silence for longer than `deadline` allows.
    [[nodiscard]] Result<Message> next(double timeout_s);
    template <class Body>
    void send(const Body& body, Payload payload = {}) {
        loop_.call([&] {
            if (socket_ && !socket_->send("", {}, body, payload)) unsent_ = true;
        });
    }

    NetLoop& loop_;
    Lifeline lifeline_ = make_lifeline();
    Inbox<Message> inbox_;
    std::unique_ptr<MessageSocket> socket_;
    ClusterHello hello_;
    Endpoint server_;
    std::vector<Message> kept_;  // tasks that came while something else was awaited
    // Network thread:
    Instant last_heard_{};
    Duration silence_max_ = std::chrono::seconds(2);
    bool unsent_ = false;
};

}  // namespace ecopipe
