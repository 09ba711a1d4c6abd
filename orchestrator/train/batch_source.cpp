#include "orchestrator/train/batch_source.h"

#include <algorithm>

#include "domain/plan.h"

namespace ecopipe {

BatchSource::Order BatchSource::order(std::uint64_t epoch) const {
    constexpr std::size_t kKept = 2;  // readers ahead are in the next epoch already
    const MutexLock lock(mutex_);
    Order& found = orders_[epoch];
    if (!found)
        found = std::make_shared<const std::vector<std::int64_t>>(
            epoch_order(data_.size(), settings_.seed, epoch, settings_.shuffle));
    const Order wanted = found;
    while (orders_.size() > kKept)
        orders_.erase(orders_.begin()->first == epoch ? std::prev(orders_.end()) : orders_.begin());
    return wanted;
}

Result<std::vector<Batch>> BatchSource::make(std::uint64_t epoch, std::uint64_t index) const {
    const Order indices = order(epoch);
    const auto whole = static_cast<std::size_t>(settings_.batch);
    const std::size_t begin = static_cast<std::size_t>(index) * whole;
    const std::size_t end = std::min(begin + whole, indices->size());
    std::vector<Batch> parts;
    std::size_t at = begin;
    for (const int size :
         micro_batch_sizes(static_cast<int>(end - begin), settings_.micro_batches)) {
        const auto part = std::span(*indices).subspan(at, static_cast<std::size_t>(size));
        ECOPIPE_ASSIGN_OR_RETURN(Batch batch, data_.batch(part));
        augment(batch, part, settings_.augmentation, settings_.seed, epoch);
        parts.push_back(std::move(batch));
        at += part.size();
    }
    return parts;
}

}  // namespace ecopipe
