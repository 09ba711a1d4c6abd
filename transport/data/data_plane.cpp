#include "transport/data/data_plane.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/log.h"
#include "core/tensor_memory.h"
#include "transport/net/zap_handler.h"

namespace ecopipe {
namespace {

constexpr auto kAttachRetry = std::chrono::milliseconds(20);
constexpr auto kAttachAgain = std::chrono::milliseconds(1000);  // unanswered
constexpr auto kSendRetry = std::chrono::milliseconds(1);
constexpr auto kShapeAhead =
    std::chrono::milliseconds(5);  // how far ahead an emulated link is booked

constexpr std::size_t kBackgroundChunkBytes = 64U << 10;  // what a training tensor waits for

bool in_background(TensorKind kind) { return kind == TensorKind::kReplica; }

}  // namespace

DataPlane::DataPlane(NetLoop& loop, std::string own_device, Callbacks callbacks)
    : loop_(loop), own_device_(std::move(own_device)), callbacks_(std::move(callbacks)) {}

DataPlane::~DataPlane() {
    loop_.call([this] {
        lifeline_.reset();
        peers_.clear();
        listener_.reset();
    });
}

Result<std::uint16_t> DataPlane::bind(const Endpoint& endpoint) {
    return loop_.call([&]() -> Result<std::uint16_t> {
        auto socket = MessageSocket::bind(
            loop_, endpoint,
            [this](const Incoming& message) {
                const auto known = names_by_routing_id_.find(message.from);
                on_message(known == names_by_routing_id_.end() ? "" : known->second, message);
            },
            [](std::string_view, const Error& error) { log_warn("data port: {}", error.message); },
            kDataDomain);
        if (!socket) return tl::unexpected<Error>(socket.error());
        listener_ = std::move(*socket);
        return listener_->port();
    });
}

void DataPlane::set_run(std::uint64_t run, std::uint64_t instance) {
    loop_.call([&] {
        run_ = run;
        instance_ = instance;
    });
}

void DataPlane::emulate(std::map<std::string, EmulatedLink> links, EmulatedLink otherwise) {
    loop_.call([&] {
        links_ = std::move(links);
        otherwise_ = otherwise;
    });
}

DataPlane::Peer& DataPlane::peer(const std::string& name) {
    auto& slot = peers_[name];
    if (!slot) {
        slot = std::make_unique<Peer>();
        const auto link = links_.find(name);
        slot->shaper = LinkShaper(link == links_.end() ? otherwise_ : link->second);
    }
    return *slot;
}

Result<void> DataPlane::dial(const std::string& name, const Endpoint& endpoint,
                             std::uint64_t instance) {
    return loop_.call([&]() -> Result<void> {
        if (!security_.insecure)
            ECOPIPE_RETURN_IF_ERROR(allow_address(endpoint, security_, "the data port of " + name));
        if (const auto known = peers_.find(name); known != peers_.end() &&
                                                  known->second->endpoint == endpoint.text() &&
                                                  known->second->instance == instance) {
            if (!known->second->attached) return {};
            // The other end may have lost the connection and taken another for it.
            if (send_message(*known->second, {}, Attach{own_device_, instance_})) {
                callbacks_.on_attached(name, instance);
            } else {  // it is cut, or so full that it may as well be
                known->second->attached = false;
                attach(name);
            }
            return {};
        }
        if (const auto known = peers_.find(name); known != peers_.end()) {
            forget_queue(*known->second);
            peers_.erase(known);
        }
        auto socket = MessageSocket::dial(
            loop_, endpoint, [this, name](const Incoming& message) { on_message(name, message); },
            [name](std::string_view, const Error& error) {
                log_warn("data channel to {}: {}", name, error.message);
            },
            name);
        if (!socket) return tl::unexpected<Error>(socket.error());
        Peer& fresh = peer(name);
        fresh.endpoint = endpoint.text();
        fresh.instance = instance;
        fresh.dialled = std::move(*socket);
        attach(name);
        return {};
    });
}

bool DataPlane::connected(const std::string& name) {
    return loop_.call([&] {
        const auto known = peers_.find(name);
        return known != peers_.end() && known->second->attached &&
               (!known->second->dialled ||
                send_message(*known->second, {}, Attach{own_device_, instance_}));
    });
}

void DataPlane::attach(const std::string& name) {
    const auto known = peers_.find(name);
    if (known == peers_.end() || known->second->attached) return;
    const bool sent = send_message(*known->second, {}, Attach{own_device_, instance_});
    loop_.at(monotonic_now() + (sent ? kAttachAgain : kAttachRetry), lifeline_,
             [this, name] { attach(name); });
}

void DataPlane::forget_queue(const Peer& peer) {
    for (const Queued& item : peer.queue)
        change_backlog(-static_cast<std::ptrdiff_t>(item.tensor.bytes() - item.chunk.offset));
}

void DataPlane::keep_only(const std::vector<std::string>& keep, std::uint32_t generation) {
    loop_.call([&] {
        std::erase_if(peers_, [&](const auto& entry) {
            if (std::find(keep.begin(), keep.end(), entry.first) != keep.end()) return false;
            forget_queue(*entry.second);
            return true;
        });
        std::erase_if(names_by_routing_id_,
                      [&](const auto& entry) { return !peers_.contains(entry.second); });
        for (auto& [name, kept] : peers_) {
            // A tensor that has begun is ended: chunks arrive in order.
            const auto old = [&](const Queued& item) {
                return item.header.generation < generation && item.chunk.offset == 0;
            };
            for (const Queued& item : kept->queue)
                if (old(item)) change_backlog(-static_cast<std::ptrdiff_t>(item.tensor.bytes()));
            std::erase_if(kept->queue, old);
            std::erase_if(kept->background, old);
        }
    });
}

template <class Message>
bool DataPlane::send_message(Peer& to, FrameHeader header, const Message& message,
                             Payload payload) {
    header.run = run_;
    MessageSocket* socket = to.dialled ? to.dialled.get() : listener_.get();
    return socket != nullptr && socket->send(to.routing_id, header, message, std::move(payload));
}

void DataPlane::send(const std::string& name, TensorAddress address, EncodedTensor encoded) {
    const bool background = in_background(address.kind);
    if (!background) change_backlog(static_cast<std::ptrdiff_t>(encoded.tensor.bytes()));
    FrameHeader header;
    header.generation = address.generation;
    header.step = address.step;
    header.micro_batch = address.micro_batch;
    header.slice = address.slice;
    const HostTensor& tensor = encoded.tensor;
    TensorChunk chunk{address.kind,
                      address.producer,
                      address.output,
                      address.outputs,
                      address.gradient_returns,
                      std::move(address.name),
                      tensor.dtype(),
                      tensor.shape(),
                      0,
                      encoded.codec,
                      encoded.scale};
    loop_.post([this, name, background, item = Queued{header, std::move(chunk), tensor}]() mutable {
        Peer& to = peer(name);
        (background ? to.background : to.queue).push_back(std::move(item));
        pump(name);
    });
}

bool DataPlane::room() const { return backlog_bytes_ < static_cast<std::ptrdiff_t>(kBacklogBytes); }

void DataPlane::change_backlog(std::ptrdiff_t bytes) {
    bool made = false;
    {
        const MutexLock lock(backlog_mutex_);
        const bool before = room();
        backlog_bytes_ += bytes;
        made = !before && room();
    }
    if (made && callbacks_.on_room) callbacks_.on_room();
}

bool DataPlane::has_room() {
    const MutexLock lock(backlog_mutex_);
    return room();
}

bool DataPlane::send_chunk(Peer& to, const Queued& item, std::size_t bytes) {
    const Payload payload{{item.tensor.data() + item.chunk.offset, bytes}, item.tensor.owner()};
    if (!send_message(to, item.header, item.chunk, payload)) return false;
    sent_bytes_ += bytes;
    return true;
}

void DataPlane::pump_later(const std::string& name, Instant when) {
    Peer& to = peer(name);
    if (to.pump_scheduled) return;
    to.pump_scheduled = true;
    loop_.at(when, lifeline_, [this, name] {
        const auto known = peers_.find(name);
        if (known == peers_.end()) return;
        known->second->pump_scheduled = false;
        pump(name);
    });
}

void DataPlane::send_late(const std::string& name) {
    loop_.at(monotonic_now() + kSendRetry, lifeline_, [this, name] {
        const auto known = peers_.find(name);
        if (known == peers_.end()) return;
        std::deque<Late>& late = known->second->late;
        while (!late.empty() && send_chunk(*known->second, late.front().item, late.front().bytes))
            late.pop_front();
        if (!late.empty()) send_late(name);
    });
}

void DataPlane::pump(const std::string& name) {
    Peer& to = peer(name);
    while (to.attached && !(to.queue.empty() && to.background.empty())) {
        const bool background = to.queue.empty();
        auto& queue = background ? to.background : to.queue;
        Queued& item = queue.front();
        const std::size_t left = item.tensor.bytes() - item.chunk.offset;
        const std::size_t bytes = std::min(left, background ? kBackgroundChunkBytes : kChunkBytes);
        if (bytes > to.credit) return;  // the next credit pumps again
        const Instant now = monotonic_now();
        if (to.shaper.active()) {
            if (to.shaper.free_at() > now + kShapeAhead) {
                pump_later(name, to.shaper.free_at() - kShapeAhead / 2);
                return;
            }
            loop_.at(to.shaper.reserve(now, bytes), lifeline_, [this, name, item, bytes] {
                const auto known = peers_.find(name);
                if (known == peers_.end()) return;
                std::deque<Late>& late = known->second->late;
                if (late.empty() && send_chunk(*known->second, item, bytes)) return;
                late.push_back({item, bytes});
                if (late.size() == 1) send_late(name);
            });
        } else if (!send_chunk(to, item, bytes)) {
            pump_later(name, now + kSendRetry);
            return;
        }
        to.credit -= bytes;
        if (!background) change_backlog(-static_cast<std::ptrdiff_t>(bytes));
        item.chunk.offset += bytes;
        if (item.chunk.offset == item.tensor.bytes()) queue.pop_front();
    }
}

void DataPlane::on_message(const std::string& from_peer, const Incoming& message) {
    const auto type = static_cast<MessageType>(message.header.type);
    if (type == MessageType::kAttach) {
        const auto attach_message = decode<Attach>(message.body);
        if (!attach_message || message.header.run != run_ || !listener_) return;
        const std::string& name = attach_message->device;
        if (!speaks_for(message.from, name == kPortalPeer ? portal_ : name)) {
            loop_.strangers().tell(fmt::format("data port: {} says it is {}, its key is another's",
                                               message.address, printable(name)));
            return;
        }
        if (!from_peer.empty() && from_peer != name) {
            loop_.strangers().tell(fmt::format("data port: {} says it is {}, it was {} before",
                                               message.address, printable(name), from_peer));
            return;
        }
        if (!peers_.contains(name) && names_by_routing_id_.size() >= kDataPeersMax) {
            loop_.strangers().tell(fmt::format("data port: {} refused: more than {} peers",
                                               message.address, kDataPeersMax));
            return;
        }
        if (from_peer == name) {  // our answer was slow: the channel stands
            static_cast<void>(
                send_message(peer(name), {}, Attached{own_device_, instance_, false}));
            return;
        }
        if (const auto before = peers_.find(name); before != peers_.end()) {
            forget_queue(*before->second);
            names_by_routing_id_.erase(before->second->routing_id);
            peers_.erase(before);
        }
        Peer& fresh = peer(name);
        fresh.routing_id = std::string(message.from);
        fresh.instance = attach_message->instance;
        fresh.attached = true;
        names_by_routing_id_[fresh.routing_id] = name;
        static_cast<void>(send_message(fresh, {}, Attached{own_device_, instance_, true}));
        callbacks_.on_attached(name, fresh.instance);
        return;
    }
    if (from_peer.empty() || message.header.run != run_) return;  // a stranger, or another run's
    Peer& from = peer(from_peer);
    if (type == MessageType::kAttached) {
        const auto answer = decode<Attached>(message.body);
        if (!answer || (from.attached && !answer->fresh)) return;
        from.attached = true;
        from.credit = kWindowBytes;
        from.owed = from.unconsumed = 0;
        from.partial = {};
        callbacks_.on_attached(from_peer, answer->instance);
        pump(from_peer);
    } else if (type == MessageType::kCredit) {
        if (const auto credit = decode<Credit>(message.body)) {
            from.credit = std::min(from.credit + credit->bytes, kWindowBytes);
            pump(from_peer);
        }
    } else if (type == MessageType::kTensorChunk) {
        on_chunk(from_peer, message);
    }
}

bool DataPlane::begin_tensor(Peer& from, Partial& partial, const TensorAddress& address) {
    const TensorChunk& chunk = from.chunk;
    const std::size_t total = std::max(
        *checked_bytes(chunk.dtype, chunk.shape),
        *checked_bytes(chunk.codec == TensorCodec::kNone ? chunk.dtype : DType::kF32, chunk.shape));
    const MemoryScope memory(is_state(address.kind) ? MemoryUse::kRecovery : MemoryUse::kArriving);
    partial = {};
    if (total > kTensorBytesMax) {
        loop_.strangers().tell(fmt::format("a tensor of {} bytes is above the limit", total));
        return false;
    }
    try {
        // State comes once: its memory goes with it.
        partial.tensor = is_state(address.kind) ? HostTensor::allocate(chunk.dtype, chunk.shape)
                                                : pool_.take(chunk.dtype, chunk.shape);
    } catch (const std::bad_alloc&) {
        loop_.strangers().tell(fmt::format("no memory for a tensor of {} bytes", total));
        return false;
    }
    partial.address = address;
    return true;
}

void DataPlane::deliver(const std::string& name, const TensorAddress& address,
                        const EncodedTensor& whole) {
    const MemoryScope memory(MemoryUse::kArriving);
    HostTensor decoded;
    try {
        decoded = decode_tensor(whole);
    } catch (const std::bad_alloc&) {
        loop_.strangers().tell(
            fmt::format("no memory to decode a tensor of {} bytes", whole.tensor.bytes()));
        return;
    }
    const std::size_t bytes = decoded.bytes();
    if (bytes > kArrivedBytesMax - std::min(arrived_bytes_->load(), kArrivedBytesMax)) {
        loop_.strangers().tell(fmt::format(
            "data channel from {}: more than can be handled, a tensor is dropped", name));
        return;
    }
    *arrived_bytes_ += bytes;
    callbacks_.on_tensor({name, address, std::move(decoded), monotonic_now(),
                          std::shared_ptr<void>(nullptr, [total = arrived_bytes_, bytes](void*) {
                              *total -= bytes;
                          })});
}

void DataPlane::on_chunk(const std::string& name, const Incoming& message) {
    Peer& from = peer(name);
    const TensorChunk& chunk = from.chunk;
    if (const auto decoded = decode_into(message.body, from.chunk); !decoded) {
        loop_.strangers().tell(
            fmt::format("data channel from {}: {}", name, decoded.error().message));
        return;
    }
    const TensorAddress address{
        message.header.generation, message.header.step, chunk.kind,   message.header.micro_batch,
        message.header.slice,      chunk.producer,      chunk.output, chunk.outputs,
        chunk.gradient_returns,    chunk.name};
    // A channel that began anew may have two windows under way, for its sender did not know it yet.
    if (message.payload.size() > 2 * kWindowBytes - from.owed) {
        loop_.strangers().tell(
            fmt::format("data channel from {}: a chunk that it had no credit for", name));
        return;
    }
    from.owed += message.payload.size();
    take_chunk(name, from, address, message.payload);
    give_credit(from);
}

void DataPlane::take_chunk(const std::string& name, Peer& from, const TensorAddress& address,
                           std::span<const std::byte> bytes) {
    const TensorChunk& chunk = from.chunk;
    Partial& partial = from.partial[in_background(chunk.kind) ? 1 : 0];
    if (chunk.offset == 0 && !begin_tensor(from, partial, address)) return;
    if (!partial.tensor.defined() || partial.address != address ||
        partial.tensor.shape() != chunk.shape || partial.tensor.dtype() != chunk.dtype ||
        chunk.offset != partial.bytes || bytes.size() > partial.tensor.bytes() - chunk.offset) {
        loop_.strangers().tell(fmt::format("data channel from {}: a chunk out of place", name));
        return;
    }
    const std::size_t total = partial.tensor.bytes();
    std::copy(bytes.begin(), bytes.end(), partial.tensor.data() + chunk.offset);
    partial.bytes += bytes.size();
    if (callbacks_.on_chunk) callbacks_.on_chunk();
    if (partial.bytes < total) return;
    if (is_streamed(address.kind)) from.unconsumed += total;
    deliver(name, address, {std::exchange(partial.tensor, HostTensor()), chunk.codec, chunk.scale});
}

void DataPlane::give_credit(Peer& to) {
    if (to.owed < kWindowBytes / 8 || to.unconsumed > kUnconsumedBytes) return;
    if (send_message(to, {}, Credit{to.owed})) to.owed = 0;
}

void DataPlane::consumed(const std::string& name, std::size_t bytes) {
    loop_.post([this, name, bytes] {
        const auto known = peers_.find(name);
        if (known == peers_.end()) return;
        Peer& from = *known->second;
        from.unconsumed -= std::min(bytes, from.unconsumed);
        give_credit(from);
    });
}

void DataPlane::sizes_change() {
    loop_.call([this] { pool_.drop_idle(); });
}

std::uint64_t DataPlane::sent_bytes() {
    return loop_.call([this] { return sent_bytes_; });
}

}  // namespace ecopipe
