#pragma once
// Tensors between devices: one direct channel per pair, in order, in chunks, with credits.
//
// The problem: a tensor is megabytes, links are slow, and one end is faster than the other. What a
// socket has taken is beyond recall: it goes to a receiver that may have no use for it yet, and
// what matters more waits behind it. The socket's own marks would not help, for they count
// messages, of whatever size, and know nothing of what the compute thread has yet to take. So the
// receiver says how many bytes may come (as the windows of HTTP/2, RFC 9113, 5.2), and the rest
// waits at its sender. Chunks let a tensor that a stage waits for go before the rest of one that
// nobody waits for. Direct channels, since by way of the portal every tensor would take two links,
// and all of them the portal's.
//
// The sender may have kWindowBytes under way to a peer; the receiver gives credit back as chunks
// arrive. Kinds that the portal or an evaluation streams (inputs, labels, evaluation activations)
// also count until the compute thread has consumed them, so a fast producer waits instead of
// filling memory. Activations and gradients of a training step need no such bound: the schedule's
// in-flight counts bound them, and bounding them twice could deadlock. Replicas go when nothing
// else is to be sent, in small chunks; snapshots follow one another only when confirmed, which
// bounds them.

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/mutex.h"
#include "domain/tensor_address.h"
#include "domain/tensor_codec.h"
#include "transport/data/buffer_pool.h"
#include "transport/data/tensor_channels.h"
#include "transport/net/link_shaper.h"
#include "transport/net/message_socket.h"
#include "transport/security/security.h"
#include "transport/wire/messages.h"

namespace ecopipe {

inline constexpr std::size_t kChunkBytes = 512U << 10;  // measured best of 256 KiB to 1 MiB
inline constexpr std::size_t kWindowBytes = 8U << 20;   // under way, per peer and direction
inline constexpr std::size_t kUnconsumedBytes =
    8U << 20;  // streamed tensors that wait for the compute thread
inline constexpr std::size_t kBacklogBytes = 16U << 20;  // streamed tensors queued at the sender

class DataPlane : public TensorChannels {
  public:
    struct Callbacks {  // all on the network thread
        std::function<void(Delivery)> on_tensor;
        // With the other end's instance; again when the channel begins anew.
        std::function<void(const std::string& peer, std::uint64_t instance)> on_attached;
        std::function<void()> on_chunk{};  // some bytes of a tensor have come; may be empty
        std::function<void()> on_room{};   // has_room() is true again; may be empty
    };
    DataPlane(NetLoop& loop, std::string own_device, Callbacks callbacks);
    ~DataPlane() override;

    // Any thread, before tensors flow. Errors: kUnreachable.
    [[nodiscard]] Result<std::uint16_t> bind(const Endpoint& endpoint);
    void set_run(std::uint64_t run, std::uint64_t instance) override;
    // Without keys, and unless it is insecure, only loopback addresses are dialled, whatever a peer
    // says of its own.
    void set_security(Security security) {
        loop_.call([&] { security_ = std::move(security); });
    }
    // With keys: whose key the portal's is.
    void set_portal(std::string name) {
        loop_.call([&] { portal_ = std::move(name); });
    }
    // Emulated links, for peers known now or later; `otherwise` serves peers not named.
    void emulate(std::map<std::string, EmulatedLink> links, EmulatedLink otherwise);
    // Any thread, as all that follows.
    [[nodiscard]] Result<void> dial(const std::string& peer, const Endpoint& endpoint,
                                    std::uint64_t instance) override;
    [[nodiscard]] bool connected(const std::string& peer) override;
    void keep_only(const std::vector<std::string>& keep, std::uint32_t generation) override;
    using TensorChannels::send;
    void send(const std::string& peer, TensorAddress address, EncodedTensor tensor) override;
    // Room: less than kBacklogBytes wait to be sent.
    [[nodiscard]] bool has_room() override;
    void consumed(const std::string& peer, std::size_t bytes) override;
    [[nodiscard]] std::uint64_t sent_bytes() override;  // waits for the network thread
    void sizes_change() override;

  private:
    struct Queued {
        FrameHeader header;
        TensorChunk chunk;  // the next one: its offset moves
        HostTensor tensor;
    };
    struct Partial {  // a tensor that is arriving
        TensorAddress address;
        HostTensor tensor;
        std::size_t bytes = 0;
    };
    // A chunk that an emulated link let through while the socket's queue was full.
    struct Late {
        Queued item;
        std::size_t bytes = 0;
    };
    struct Peer {
        std::string endpoint;                    // dialled peers
        std::unique_ptr<MessageSocket> dialled;  // null: they dialled us
        std::string routing_id;                  // of a peer that dialled us
        std::uint64_t instance = 0;              // as dialled, or as it said
        bool attached = false;
        LinkShaper shaper{EmulatedLink{}};
        bool pump_scheduled = false;
        std::deque<Queued> queue;
        std::deque<Queued> background;  // replicas: sent while nothing else is to be sent
        std::deque<Late> late;          // in order, before anything else that the link lets through
        std::size_t credit = kWindowBytes;
        std::size_t owed = 0;            // arrived, and its credit not given back
        std::size_t unconsumed = 0;      // streamed bytes that wait for the compute thread
        TensorChunk chunk;               // the last that arrived
        std::array<Partial, 2> partial;  // of the queue, of the background
    };

    Peer& peer(const std::string& name);
    void attach(const std::string& name);
    void pump(const std::string& name);
    void pump_later(const std::string& name, Instant when);
    void send_late(const std::string& name);  // when there is room; an emulated link alone needs it
    [[nodiscard]] bool send_chunk(Peer& to, const Queued& item, std::size_t bytes);
    [[nodiscard]] bool begin_tensor(Peer& from, Partial& partial, const TensorAddress& address);
    void forget_queue(const Peer& peer);
    void on_message(const std::string& from_peer, const Incoming& message);
    void on_chunk(const std::string& name, const Incoming& message);
    // A chunk as `from.chunk` describes it; dropped unless it goes on where its tensor is.
    void take_chunk(const std::string& name, Peer& from, const TensorAddress& address,
                    std::span<const std::byte> bytes);
    // What has arrived whole, decoded; nothing when there is no memory for it.
    void deliver(const std::string& name, const TensorAddress& address, const EncodedTensor& whole);
    void give_credit(Peer& to);
    void change_backlog(std::ptrdiff_t bytes) ECOPIPE_EXCLUDES(backlog_mutex_);
    [[nodiscard]] bool room() const ECOPIPE_REQUIRES(backlog_mutex_);
    template <class Message>
    bool send_message(Peer& to, FrameHeader header, const Message& message, Payload payload = {});

    NetLoop& loop_;
    Lifeline lifeline_ = make_lifeline();
    std::string own_device_;
    Callbacks callbacks_;
    std::unique_ptr<MessageSocket> listener_;
    std::map<std::string, std::unique_ptr<Peer>> peers_;
    std::map<std::string, std::string, std::less<>> names_by_routing_id_;
    std::string portal_;
    Security security_;
    BufferPool pool_;
    // Of deliveries that are alive; theirs too, for they may outlive this.
    std::shared_ptr<std::atomic<std::size_t>> arrived_bytes_ =
        std::make_shared<std::atomic<std::size_t>>(0);
    std::map<std::string, EmulatedLink> links_;
    EmulatedLink otherwise_;
    std::uint64_t run_ = 0;
    std::uint64_t instance_ = 0;
    std::uint64_t sent_bytes_ = 0;

    Mutex backlog_mutex_;
    // Queued and not yet handed to a socket.
    std::ptrdiff_t backlog_bytes_ ECOPIPE_GUARDED_BY(backlog_mutex_) = 0;
};

}  // namespace ecopipe
