#pragma once
// Where a stage's tensors go and which of those that come it takes: the plan decides, never the
// order of arrival. What waits is bounded (waiting_tensors.h). One thread, pure.

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "domain/ids.h"
#include "domain/plan_index.h"
#include "stage_runtime/stage/stage_machine.h"
#include "stage_runtime/stage/waiting_tensors.h"
#include "transport/data/tensor_channels.h"

namespace ecopipe {

// What a step's tensors have in common.
struct RoutedStep {
    std::uint32_t generation = 0;
    std::uint64_t step = 0;
};

class TensorRouter {
  public:
    TensorRouter(std::string device, TensorChannels& channels)
        : device_(std::move(device)), channels_(channels) {}

    void clear();  // of all that waits, and of the plan
    // From now on these are the plan, what its model's layers hand one another, and those who may
    // send state. What waits stays.
    void set_plan(const PlanIndex* plan, const ValueGraph* flow, std::set<std::string> peers);
    // Which of the devices that hold a layer together adds it up.
    void set_homes(std::map<int, std::string> homes) { homes_ = std::move(homes); }

    // What has become of a tensor that came.
    enum class Taken {
        kWaits,    // for its action
        kEarly,    // for the configuration that it belongs to
        kState,    // it is a layer's: the caller's
        kDropped,  // nobody may send that, or there is no room for it
    };
    // `generation`: of the configuration in force, nothing before the first. Moves from `delivery`
    // unless it is kState.
    [[nodiscard]] Taken take(Delivery& delivery, std::optional<std::uint32_t> generation);
    // Those that came early, in the order they came, to be taken again.
    [[nodiscard]] std::vector<Delivery> take_early() { return waiting_.take_early(); }

    // All that an action consumes, in the addresses' order; a chain's gradients stand at the place
    // of their output. Their senders get their room back. Those that are `kept` stay for another
    // action. `complete_since` becomes the last arrival.
    [[nodiscard]] std::vector<HostTensor> consume(const std::vector<TensorAddress>& addresses,
                                                  const std::set<TensorAddress>& kept,
                                                  Instant& complete_since);
    // One that nobody will use gives its room back all the same.
    void drop(const TensorAddress& address);

    // A slice's values to whoever takes them.
    void send_outputs(const RoutedStep& step, TensorKind kind, const SliceRole& role, SliceId slice,
                      MicroBatchId micro_batch, std::vector<EncodedTensor> outputs);
    // The gradients of its inputs to whoever made those; undefined ones are left out.
    void send_gradients(const RoutedStep& step, const SliceRole& role, SliceId slice,
                        MicroBatchId micro_batch, std::vector<EncodedTensor> gradients);
    // Tied weights: to the devices of these stages, once each.
    void send_tied(const std::vector<StageId>& to, const TensorAddress& address,
                   const HostTensor& tensor) {
        send(to, address, EncodedTensor{tensor});
    }
    // What the devices that hold a stage together exchange.
    void send_sum(const std::vector<std::string>& to, const TensorAddress& address,
                  const EncodedTensor& sum) {
        for (const std::string& device : to) channels_.send(device, address, sum);
    }
    // What one slice of this device has sent to another, to be taken like what comes.
    [[nodiscard]] std::optional<Delivery> next_local();

  private:
    // Whether the plan has this tensor come from that peer: a device with a key may still be
    // hostile, and nobody but a layer's owner may say what the layer made.
    [[nodiscard]] bool entitled(const Delivery& delivery) const;
    // Its peer runs the micro-batch in the stage of the layer.
    [[nodiscard]] bool owns(const Delivery& delivery, int layer) const;
    // A sum that this device waits for may come from its peer.
    [[nodiscard]] bool may_say_sum(const Delivery& delivery) const;
    // A streamed tensor of another device gives its room back when it is used.
    void give_back(const std::string& peer, TensorKind kind, std::size_t bytes);
    // Once to each device that runs the micro-batch in these stages; of what is of no micro-batch,
    // to all that hold them.
    void send(const std::vector<StageId>& to, const TensorAddress& address,
              const EncodedTensor& tensor);
    void send_to(const std::string& device, const TensorAddress& address,
                 const EncodedTensor& tensor);

    std::string device_;
    TensorChannels& channels_;
    const PlanIndex* plan_ = nullptr;
    const ValueGraph* flow_ = nullptr;
    std::set<std::string> peers_;
    std::map<int, std::string> homes_;
    // Of a graph, whose gradients come here: the value's producer and output, the user's stage.
    std::set<std::tuple<std::uint32_t, std::uint16_t, std::uint16_t>> returning_;
    WaitingTensors waiting_;
    std::deque<Delivery> local_;
};

}  // namespace ecopipe
