#include "stage_runtime/stage/link_prober.h"

namespace ecopipe {

Result<void> LinkProber::start(const ProbeLink& order, bool attached, Instant now) {
    ECOPIPE_ASSIGN_OR_RETURN(const Endpoint endpoint,
                             parse_endpoint(order.endpoint, "peer " + order.peer));
    peer_ = order.peer;
    probe_.emplace();
    ECOPIPE_RETURN_IF_ERROR(channels_.dial(order.peer, endpoint, 0));
    if (attached) send(peer_, probe_->begin(now));
    return {};
}

void LinkProber::attached(const std::string& peer, Instant now) {
    if (probe_ && peer == peer_) send(peer_, probe_->begin(now));
}

std::optional<LinkProbed> LinkProber::take(const Delivery& delivery, Instant now) {
    const std::uint32_t number = delivery.address.micro_batch;
    if (delivery.address.gradient_returns) {
        send(delivery.peer, {number, 0});
        return std::nullopt;
    }
    if (!probe_ || delivery.peer != peer_) return std::nullopt;
    if (const auto next = probe_->answered(number, now)) {
        send(peer_, *next);
        return std::nullopt;
    }
    const auto result = probe_->result();
    if (!result) return std::nullopt;
    probe_.reset();
    return LinkProbed{peer_, result->mbps, result->latency_ms};
}

void LinkProber::send(const std::string& peer, const ProbeSend& probe) {
    TensorAddress address;
    address.kind = TensorKind::kProbe;
    address.micro_batch = probe.number;
    address.gradient_returns = probe.bytes > 0;  // an answer is empty
    channels_.send(peer, address,
                   HostTensor::allocate(DType::kU8, {static_cast<std::int64_t>(probe.bytes)}));
}

}  // namespace ecopipe
