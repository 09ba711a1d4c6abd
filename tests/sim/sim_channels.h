#pragma once
// Data channels on a simulated network: a tensor is one chunk, and what is sent before a channel
// stands, or over one of an earlier life, is lost.

#include <functional>
#include <map>
#include <string>

#include "transport/data/tensor_channels.h"
#include "transport/net/sim_network.h"

namespace ecopipe::sim {

class SimChannels : public TensorChannels {
  public:
    struct Events {
        std::function<void(Delivery)> on_tensor;
        std::function<void(const std::string& peer, std::uint64_t instance)> on_attached;
        std::function<void()> on_room;
    };
    SimChannels(SimNetwork& net, std::string node, Events events)
        : net_(net), node_(std::move(node)), events_(std::move(events)) {}

    // A data frame came.
    void on_message(const FrameHeader& head, const SimMessage& message);
    // Asked of each tensor before it is sent, when set: what is sent in its place. For mistakes.
    std::function<HostTensor(const TensorAddress&, HostTensor)> forge;
    // Told of each tensor that is sent, when set.
    std::function<void(const std::string& peer, const TensorAddress&)> watch;

    void set_run(std::uint64_t run, std::uint64_t instance) override;
    Result<void> dial(const std::string& peer, const Endpoint& endpoint,
                      std::uint64_t instance) override;
    bool connected(const std::string& peer) override { return attached_.contains(peer); }
    void keep_only(const std::vector<std::string>& keep, std::uint32_t generation) override;
    using TensorChannels::send;
    void send(const std::string& peer, TensorAddress address, EncodedTensor tensor) override;
    bool has_room() override;  // at times not
    void consumed(const std::string&, std::size_t) override {}
    std::uint64_t sent_bytes() override { return sent_bytes_; }
    void sizes_change() override {}

  private:
    void knock(const std::string& peer, std::uint64_t life);
    void attach(const std::string& peer, std::uint64_t instance);
    template <class Message>
    void send_message(const std::string& to, FrameHeader head, const Message& message,
                      std::string payload = {});

    SimNetwork& net_;
    std::string node_;
    Events events_;
    std::uint64_t run_ = 0;
    std::uint64_t instance_ = 0;
    std::uint64_t life_ = 0;                         // of the run; timers of an earlier do nothing
    std::map<std::string, std::uint64_t> wanted_;    // dialled; 0: whoever answers
    std::map<std::string, std::uint64_t> attached_;  // the other end's instance
    std::uint64_t sent_bytes_ = 0;
};

}  // namespace ecopipe::sim
