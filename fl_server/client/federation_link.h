#pragma once
// A cluster's connection to the federation's server: says Hello until welcomed, after silence and
// while it has nothing to do, answers pings, pulls models, pushes updates. It outlives the server:
// what is under way goes on when it is back. The only place of the client that touches the wire.

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/inbox.h"
#include "transport/net/message_socket.h"
#include "transport/wire/federation_messages.h"
#include "transport/wire/messages.h"

namespace ecopipe {

// One slice of an update: its announcement, and its part of the update's flat bytes.
struct OutgoingSlice {
    UpdateSlice announcement;
    std::size_t offset = 0;
    std::size_t bytes = 0;
};

class FederationLink {
  public:
    explicit FederationLink(NetLoop& loop) : loop_(loop) {}
    ~FederationLink();
    FederationLink(const FederationLink&) = delete;
    FederationLink& operator=(const FederationLink&) = delete;

    // Dials and waits for the welcome, also while the server has a reason to wait. `peer`: whose
    // key the server's is, with keys. Errors: kUnreachable after `timeout_s`, with that reason;
    // what the server refuses with for good. `map_classes`: what to say when the federation's
    // classes are those of this list; its error ends the call.
    using MapClasses = std::function<Result<ClusterHello>(const std::vector<std::string>& list)>;
    [[nodiscard]] Result<ClusterWelcome> join(const Endpoint& server, const std::string& peer,
                                              const ClusterHello& hello, double timeout_s,
                                              const MapClasses& map_classes = {});
    // How long the server may be silent from now on before the calls below give up.
    void set_patience(double patience_s) { patience_s_ = patience_s; }

    // The next task; one that was answered before is passed over. Nothing when the federation has
    // ended well. Errors: kUnreachable; the server's reason when it ended badly.
    [[nodiscard]] Result<std::optional<Task>> next_task();
    // Nothing when the task is void: the federation has ended meanwhile, which `next_task` tells,
    // it has given another task, or its state was restored.
    [[nodiscard]] Result<std::optional<TensorMap>> pull_model(const Task& task);
    // Sends the update and waits for the verdict, over reconnects and restarts of the server.
    [[nodiscard]] Result<Verdict> push_update(const std::vector<OutgoingSlice>& slices,
                                              std::shared_ptr<const std::string> bytes);
    void send_status(const ClusterStatus& status) { send(status); }

  private:
    struct Message {
        MessageType type;
        std::vector<std::byte> body;
        std::vector<std::byte> payload;
    };
    void say_hello();
    void on_message(const Incoming& message);
    void work_on(std::uint64_t task);  // 0: on nothing
    // A welcome of another epoch: what came of the one before means nothing any more.
    [[nodiscard]] Result<void> take_epoch(const Message& welcome);
    // The next message; nothing after `wait_s`. Errors: a signal, an end, a refusal, a server that
    // has been silent for longer than `patience_s`.
    [[nodiscard]] Result<std::optional<Message>> next(double wait_s, double patience_s);
    [[nodiscard]] tl::unexpected<Error> still_refused(double waited_s) const;
    // A task that the server has given since: the one before is not the cluster's any more.
    [[nodiscard]] static bool is_newer(const Message& message, const Task& than);
    // For `next_task`. Whether it is the end, after which no task that was sent before counts.
    [[nodiscard]] bool keep(Message message);
    template <class Body>
    void send(const Body& body, Payload payload = {}) {
        loop_.call([&] {
            if (socket_) static_cast<void>(socket_->send("", {}, body, payload));
        });
    }

    NetLoop& loop_;
    Lifeline lifeline_ = make_lifeline();
    Inbox<Message> inbox_;
    std::unique_ptr<MessageSocket> socket_;
    Endpoint server_;
    double patience_s_ = 60;
    std::deque<Message> kept_;    // what came while something else was awaited
    std::uint64_t epoch_ = 0;     // the federation's; 0: not welcomed yet
    std::uint64_t answered_ = 0;  // the newest task of this epoch with a verdict
    bool told_silence_ = false;
    bool welcomed_ = false;
    std::string refused_for_now_;  // why the server does not take this cluster yet
    // Network thread:
    ClusterHello hello_;
    Instant last_heard_{};
    Instant last_hello_{};
    Instant hello_due_{};
    Duration silence_max_ = std::chrono::milliseconds(500);
};

}  // namespace ecopipe
