#include "stage_runtime/stage/tensor_router.h"

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "core/log.h"

namespace ecopipe {

void TensorRouter::clear() {
    plan_ = nullptr;
    flow_ = nullptr;
    peers_.clear();
    homes_.clear();
    returning_.clear();
    waiting_.clear();
    local_.clear();
}

void TensorRouter::set_plan(const PlanIndex* plan, const ValueGraph* flow,
                            std::set<std::string> peers) {
    plan_ = plan;
    flow_ = flow;
    peers_ = std::move(peers);
    returning_.clear();
    if (flow->is_chain()) return;
    for (const StageId stage : plan->stages_of(device_))
        for (const ValueWay& way : plan->ways_of(stage).returning) {
            const ModelValue& value = flow->values()[static_cast<std::size_t>(way.value)];
            returning_.emplace(static_cast<std::uint32_t>(value.producer),
                               static_cast<std::uint16_t>(value.output),
                               static_cast<std::uint16_t>(way.stage->value));
        }
}

bool TensorRouter::owns(const Delivery& delivery, int layer) const {
    const std::optional<StageId> stage = plan_->stage_of(layer);
    return stage && plan_->owner_of(*stage, delivery.address.micro_batch) == delivery.peer;
}

bool TensorRouter::may_say_sum(const Delivery& delivery) const {
    const auto layer = static_cast<int>(delivery.address.producer);
    if (!plan_->holds(delivery.peer, layer) || !plan_->holds(device_, layer)) return false;
    const auto home = homes_.find(layer);
    switch (delivery.address.kind) {
        case TensorKind::kStatistics:
            return owns(delivery, layer);
        case TensorKind::kGradientTotal:
            return home != homes_.end() && home->second == delivery.peer;
        default: {
            const auto blocks = plan_->blocks_of(*plan_->stage_of(layer), delivery.peer);
            const std::vector<int> nodes = plan_->sum_tree().subtrees(blocks);
            return home != homes_.end() && home->second == device_ &&
                   std::find(nodes.begin(), nodes.end(),
                             static_cast<int>(delivery.address.slice)) != nodes.end();
        }
    }
}

bool TensorRouter::entitled(const Delivery& delivery) const {
    const auto producer = static_cast<int>(delivery.address.producer);
    switch (delivery.address.kind) {
        case TensorKind::kActivation:
        case TensorKind::kEvalActivation:
            return owns(delivery, producer);
        case TensorKind::kGradient: {
            if (flow_->is_chain()) return owns(delivery, producer + 1);
            const TensorAddress& address = delivery.address;
            return returning_.contains({address.producer, address.output, address.slice}) &&
                   plan_->owner_of(StageId{address.slice}, address.micro_batch) == delivery.peer;
        }
        case TensorKind::kGradientSum:  // of a device that holds the layer too
        case TensorKind::kGradientTotal:
        case TensorKind::kStatistics:
            return may_say_sum(delivery);
        case TensorKind::kTiedGradient:  // of the layer that found it, or has it
        case TensorKind::kTiedWeight:
            return plan_->holds(delivery.peer, producer);
        case TensorKind::kState:
        case TensorKind::kReplica:
            return delivery.peer == kPortalPeer || peers_.contains(delivery.peer);
        case TensorKind::kInput:
        case TensorKind::kLabel:
        case TensorKind::kEvalInput:
        case TensorKind::kEvalLabel:
            return delivery.peer == kPortalPeer;
        case TensorKind::kProbe:
            break;
    }
    return false;
}

void TensorRouter::give_back(const std::string& peer, TensorKind kind, std::size_t bytes) {
    if (is_streamed(kind) && peer != device_) channels_.consumed(peer, bytes);
}

TensorRouter::Taken TensorRouter::take(Delivery& delivery,
                                       std::optional<std::uint32_t> generation) {
    const TensorKind kind = delivery.address.kind;
    const std::string peer = delivery.peer;
    const std::size_t bytes = delivery.tensor.bytes();
    const bool early = !generation || delivery.address.generation > *generation;
    const bool wrong = !early && delivery.address.generation == *generation && !entitled(delivery);
    if (!early && !wrong && is_state(kind)) return Taken::kState;
    if (!wrong && (early ? waiting_.keep_early(delivery) : waiting_.keep(delivery)))
        return early ? Taken::kEarly : Taken::kWaits;
    give_back(peer, kind, bytes);
    log_debug("a tensor of {} that is not expected of it is dropped", peer);
    return Taken::kDropped;
}

std::vector<HostTensor> TensorRouter::consume(const std::vector<TensorAddress>& addresses,
                                              const std::set<TensorAddress>& kept,
                                              Instant& complete_since) {
    std::vector<HostTensor> tensors;
    for (const TensorAddress& address : addresses) {
        std::optional<Delivery> found = waiting_.take(address);
        ECOPIPE_CHECK(found.has_value());
        complete_since = std::max(complete_since, found->arrived);
        const bool by_output = address.kind == TensorKind::kGradient && flow_->is_chain();
        const std::size_t at = by_output ? address.output : tensors.size();
        if (tensors.size() <= at) tensors.resize(at + 1);
        tensors[at] = found->tensor;
        if (kept.contains(address)) {
            ECOPIPE_CHECK(waiting_.keep(*found));
        } else {
            give_back(found->peer, address.kind, tensors[at].bytes());
        }
    }
    return tensors;
}

void TensorRouter::drop(const TensorAddress& address) {
    if (const auto found = waiting_.take(address))
        give_back(found->peer, address.kind, found->tensor.bytes());
}

void TensorRouter::send_outputs(const RoutedStep& step, TensorKind kind, const SliceRole& role,
                                SliceId slice, MicroBatchId micro_batch,
                                std::vector<EncodedTensor> outputs) {
    TensorAddress address;
    address.generation = step.generation;
    address.step = step.step;
    address.kind = kind;
    address.micro_batch = micro_batch.value;
    address.slice = static_cast<std::uint16_t>(slice.value);
    const StageWays& ways = plan_->ways_of(role.stage);
    const auto takers = [&](int value) {
        std::vector<StageId> stages;
        for (const ValueWay& way : ways.departing)
            if (way.value == value) stages.push_back(*way.stage);
        return stages;
    };
    const std::vector<int> leaving = flow_->leaving({role.first_layer, role.last_layer});
    if (flow_->is_chain()) {
        address.producer = static_cast<std::uint32_t>(role.last_layer);
        address.outputs = static_cast<std::uint16_t>(outputs.size());
        address.gradient_returns = flow_->returns_gradient(leaving.front());
        for (std::size_t i = 0; i < outputs.size(); ++i) {
            address.output = static_cast<std::uint16_t>(i);
            send(takers(leaving.front()), address, outputs[i]);
        }
        return;
    }
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        const ModelValue& value = flow_->values()[static_cast<std::size_t>(leaving[i])];
        address.producer = static_cast<std::uint32_t>(value.producer);
        address.output = static_cast<std::uint16_t>(value.output);
        address.outputs = static_cast<std::uint16_t>(flow_->results_of(value.producer).size());
        address.gradient_returns = flow_->returns_gradient(leaving[i]);
        send(takers(leaving[i]), address, outputs[i]);
    }
}

void TensorRouter::send_gradients(const RoutedStep& step, const SliceRole& role, SliceId slice,
                                  MicroBatchId micro_batch, std::vector<EncodedTensor> gradients) {
    TensorAddress address;
    address.generation = step.generation;
    address.step = step.step;
    address.kind = TensorKind::kGradient;
    address.micro_batch = micro_batch.value;
    const StageWays& ways = plan_->ways_of(role.stage);
    if (flow_->is_chain()) {
        address.slice = static_cast<std::uint16_t>(slice.value);
        address.producer = static_cast<std::uint32_t>(role.first_layer - 1);
        address.outputs = static_cast<std::uint16_t>(
            std::count_if(gradients.begin(), gradients.end(),
                          [](const EncodedTensor& g) { return g.tensor.defined(); }));
        for (std::size_t i = 0; i < gradients.size(); ++i) {
            if (!gradients[i].tensor.defined()) continue;
            address.output = static_cast<std::uint16_t>(i);
            send({*ways.returned.front().stage}, address, gradients[i]);
        }
        return;
    }
    // Several users' gradients of one value may come to one device: each says whose it is.
    address.slice = static_cast<std::uint16_t>(role.stage.value);
    auto returned = ways.returned.begin();
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        const int number = ways.arriving[i].value;
        if (returned == ways.returned.end() || returned->value != number) continue;
        const ModelValue& value = flow_->values()[static_cast<std::size_t>(number)];
        address.producer = static_cast<std::uint32_t>(value.producer);
        address.output = static_cast<std::uint16_t>(value.output);
        address.outputs = static_cast<std::uint16_t>(flow_->results_of(value.producer).size());
        send({*returned->stage}, address, gradients[i]);
        ++returned;
    }
}

void TensorRouter::send(const std::vector<StageId>& to, const TensorAddress& address,
                        const EncodedTensor& tensor) {
    std::set<std::string> sent;  // a device takes a value once
    for (const StageId stage : to) {
        if (is_tied(address.kind)) {
            for (const std::string& device : plan_->devices_of(stage))
                if (sent.insert(device).second) send_to(device, address, tensor);
            continue;
        }
        const std::string& device = plan_->owner_of(stage, address.micro_batch);
        if (sent.insert(device).second) send_to(device, address, tensor);
    }
}

void TensorRouter::send_to(const std::string& device, const TensorAddress& address,
                           const EncodedTensor& tensor) {
    if (device == device_) {  // no wire between
        // What it waits for was over when its slice was.
        HostTensor value = decode_tensor(tensor);
        // Sums of several blocks are added to in place, before the other slice has done with it.
        if (address.kind == TensorKind::kGradient && plan_->sum_tree().blocks() > 1 &&
            tensor.codec == TensorCodec::kNone)
            value = value.clone();
        local_.push_back({device_, address, std::move(value), Instant()});
    } else {
        channels_.send(device, address, tensor);
    }
}

std::optional<Delivery> TensorRouter::next_local() {
    if (local_.empty()) return std::nullopt;
    Delivery next = std::move(local_.front());
    local_.pop_front();
    return next;
}

}  // namespace ecopipe
