#pragma once
// Tensors to and from other devices as who sends and takes them sees it: the data plane over
// sockets (data_plane.h), or a simulated one. What arrives, and that there is room again, are
// events of whoever made it.

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "domain/tensor_address.h"
#include "domain/tensor_codec.h"
#include "transport/security/endpoint.h"

namespace ecopipe {

class TensorChannels {
  public:
    TensorChannels() = default;
    TensorChannels(const TensorChannels&) = delete;
    TensorChannels& operator=(const TensorChannels&) = delete;
    virtual ~TensorChannels() = default;

    // From now on channels are of this run, whose frames alone count; `instance` is told to peers.
    virtual void set_run(std::uint64_t run, std::uint64_t instance) = 0;
    // Dials a peer; a channel that stands with the same endpoint and instance is kept, but both
    // ends make sure that it does. `instance` 0: whoever answers. Errors: kUsage for an address
    // that may not be dialled.
    [[nodiscard]] virtual Result<void> dial(const std::string& peer, const Endpoint& endpoint,
                                            std::uint64_t instance) = 0;
    // Whether a channel with this peer stands, as far as is known: of one that was dialled, whether
    // it still has a connection.
    [[nodiscard]] virtual bool connected(const std::string& peer) = 0;
    // Forgets peers not in `keep` and everything queued for or from them, and what is queued of
    // generations before `generation` for the others.
    virtual void keep_only(const std::vector<std::string>& keep, std::uint32_t generation) = 0;

    // Queues the tensor; its memory is read until it has left. An encoded one is decoded at the
    // other end before it is delivered.
    virtual void send(const std::string& peer, TensorAddress address, EncodedTensor tensor) = 0;
    void send(const std::string& peer, TensorAddress address, HostTensor tensor) {
        send(peer, std::move(address), EncodedTensor{std::move(tensor)});
    }
    // Whether little enough waits to be sent for a producer of streamed tensors (inputs, labels,
    // what an evaluation hands on) to go on. Once false, an event tells when that has changed.
    [[nodiscard]] virtual bool has_room() = 0;
    // A streamed tensor of this size was taken by whoever consumes it.
    virtual void consumed(const std::string& peer, std::size_t bytes) = 0;
    [[nodiscard]] virtual std::uint64_t sent_bytes() = 0;  // payload so far
    // Tensors of other sizes come from now on: memory to receive into that nothing waits in is
    // given back.
    virtual void sizes_change() = 0;
};

}  // namespace ecopipe
