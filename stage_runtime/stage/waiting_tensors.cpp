#include "stage_runtime/stage/waiting_tensors.h"

#include <utility>

#include "stage_runtime/stage/limits.h"

namespace ecopipe {

bool WaitingTensors::fits(const Delivery& delivery) const {
    return !waiting_.contains(delivery.address) &&
           delivery.tensor.bytes() <= kWaitingBytesMax - bytes_;
}

bool WaitingTensors::keep(Delivery& delivery) {
    if (!fits(delivery)) return false;
    bytes_ += delivery.tensor.bytes();
    const TensorAddress address = delivery.address;
    waiting_.emplace(address, std::move(delivery));
    return true;
}

bool WaitingTensors::keep_early(Delivery& delivery) {
    const std::size_t bytes = delivery.tensor.bytes();
    if (!fits(delivery) || early_.size() >= kEarlyTensorsMax ||
        bytes > kEarlyBytesMax - early_bytes_)
        return false;
    bytes_ += bytes;
    early_bytes_ += bytes;
    early_.push_back(std::move(delivery));
    return true;
}

std::vector<Delivery> WaitingTensors::take_early() {
    bytes_ -= std::exchange(early_bytes_, 0);
    return std::exchange(early_, {});
}

std::optional<Delivery> WaitingTensors::take(const TensorAddress& address) {
    auto entry = waiting_.extract(address);
    if (entry.empty()) return std::nullopt;
    bytes_ -= entry.mapped().tensor.bytes();
    return std::move(entry.mapped());
}

void WaitingTensors::clear() {
    waiting_.clear();
    early_.clear();
    bytes_ = early_bytes_ = 0;
}

}  // namespace ecopipe
