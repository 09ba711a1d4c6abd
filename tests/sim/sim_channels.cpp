#include "tests/sim/sim_channels.h"

#include <algorithm>
#include <cstring>

#include "transport/wire/codec.h"
#include "transport/wire/messages.h"

namespace ecopipe::sim {
namespace {
constexpr auto kKnockEvery = std::chrono::milliseconds(200);
}  // namespace

template <class Message>
void SimChannels::send_message(const std::string& to, FrameHeader head, const Message& message,
                               std::string payload) {
    head.run = run_;
    head.type = static_cast<std::uint16_t>(Message::kType);
    net_.send(to, sealed_message(node_, instance_, head, encode(message), std::move(payload)));
}

void SimChannels::set_run(std::uint64_t run, std::uint64_t instance) {
    if (run == run_ && instance == instance_) return;
    run_ = run;
    instance_ = instance;
    ++life_;
    wanted_.clear();
    attached_.clear();
}

Result<void> SimChannels::dial(const std::string& peer, const Endpoint&, std::uint64_t instance) {
    wanted_[peer] = instance;
    send_message(peer, {}, Attach{node_, instance_});  // heals what only one end believes in
    net_.at(net_.now() + kKnockEvery, node_, [this, peer, life = life_] { knock(peer, life); });
    return {};
}

void SimChannels::knock(const std::string& peer, std::uint64_t life) {
    const auto wanted = wanted_.find(peer);
    if (life != life_ || wanted == wanted_.end()) return;
    const auto attached = attached_.find(peer);
    if (attached != attached_.end() && (wanted->second == 0 || wanted->second == attached->second))
        return;
    send_message(peer, {}, Attach{node_, instance_});
    net_.at(net_.now() + kKnockEvery, node_, [this, peer, life] { knock(peer, life); });
}

void SimChannels::keep_only(const std::vector<std::string>& keep, std::uint32_t) {
    const auto gone = [&](const auto& entry) {
        return std::find(keep.begin(), keep.end(), entry.first) == keep.end();
    };
    std::erase_if(wanted_, gone);
    std::erase_if(attached_, gone);
}

void SimChannels::attach(const std::string& peer, std::uint64_t instance) {
    const auto [at, fresh] = attached_.try_emplace(peer, instance);
    if (!fresh && at->second == instance) return;
    at->second = instance;
    events_.on_attached(peer, instance);
}

void SimChannels::on_message(const FrameHeader& head, const SimMessage& message) {
    if (run_ == 0 || head.run != run_) return;
    const std::string& peer = message.from;
    const auto body = std::as_bytes(std::span(message.body));
    switch (static_cast<MessageType>(head.type)) {
        case MessageType::kAttach:
            if (const auto request = decode<Attach>(body)) {
                send_message(peer, {}, Attached{node_, instance_});
                attach(peer, request->instance);
            }
            break;
        case MessageType::kAttached:
            if (const auto answer = decode<Attached>(body)) attach(peer, answer->instance);
            break;
        default: {
            const auto chunk = decode<TensorChunk>(body);
            const auto attached = attached_.find(peer);
            // Of a socket that is not the one attached: a stranger's.
            if (!chunk || attached == attached_.end() || attached->second != message.connection)
                return;
            HostTensor tensor = HostTensor::allocate(chunk->dtype, chunk->shape);
            std::memcpy(tensor.data(), message.payload.data(), tensor.bytes());
            events_.on_tensor({peer,
                               {head.generation, head.step, chunk->kind, head.micro_batch,
                                head.slice, chunk->producer, chunk->output, chunk->outputs,
                                chunk->gradient_returns, chunk->name},
                               decode_tensor({std::move(tensor), chunk->codec, chunk->scale}),
                               net_.now()});
        }
    }
}

void SimChannels::send(const std::string& peer, TensorAddress address, EncodedTensor encoded) {
    if (watch) watch(peer, address);
    HostTensor tensor = std::move(encoded.tensor);  // as it goes on the wire
    if (forge) tensor = forge(address, std::move(tensor));
    FrameHeader head;
    head.generation = address.generation;
    head.step = address.step;
    head.micro_batch = address.micro_batch;
    head.slice = address.slice;
    const TensorChunk chunk{address.kind,
                            address.producer,
                            address.output,
                            address.outputs,
                            address.gradient_returns,
                            address.name,
                            tensor.dtype(),
                            tensor.shape(),
                            0,
                            encoded.codec,
                            encoded.scale};
    sent_bytes_ += tensor.bytes();
    send_message(peer, head, chunk,
                 std::string(reinterpret_cast<const char*>(tensor.data()), tensor.bytes()));
}

bool SimChannels::has_room() {
    if (net_.rng().below(8) > 0) return true;
    net_.at(net_.now() + std::chrono::milliseconds(3), node_, events_.on_room);
    return false;
}

}  // namespace ecopipe::sim
