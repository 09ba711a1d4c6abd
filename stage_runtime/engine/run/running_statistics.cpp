#include "stage_runtime/engine/run/running_statistics.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "core/check.h"

namespace ecopipe {
namespace {

template <class T>
void follow(const at::Tensor& running, const std::byte* found, double momentum) {
    T* values = running.data_ptr<T>();
    for (std::int64_t i = 0; i < running.numel(); ++i) {
        T each;
        std::memcpy(&each, found + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
        values[i] = static_cast<T>((1 - momentum) * static_cast<double>(values[i]) +
                                   momentum * static_cast<double>(each));
    }
}

}  // namespace

RunningStatistics::RunningStatistics(const Layers& layers) : layers_(&layers) {
    for (std::size_t i = 0; i < layers.size(); ++i)
        for (const RunningStatistic& what : layers[i]->statistics) {
            statistics_.push_back({i, what});
            bytes_ += layers[i]->tensors[what.buffer].tensor.nbytes();
        }
}

RunningStatistics::Capture::Capture(RunningStatistics* to) : to_(to) {
    if (to_ == nullptr) return;
    found_.resize(to_->layers_->size());
    for (std::size_t i = 0; i < found_.size(); ++i) (*to_->layers_)[i]->found = &found_[i];
}

RunningStatistics::Capture::~Capture() {
    if (to_ == nullptr) return;
    for (const auto& layer : *to_->layers_) layer->found = nullptr;
}

void RunningStatistics::Capture::keep(std::uint32_t micro_batch) {
    if (to_ == nullptr) return;
    HostTensor all = HostTensor::allocate(DType::kU8, {static_cast<std::int64_t>(to_->bytes_)});
    std::byte* at = all.data();
    for (const Tensors& layer : found_)
        for (const at::Tensor& found : layer) {
            ECOPIPE_CHECK(at + found.nbytes() <= all.data() + to_->bytes_);
            std::memcpy(at, found.data_ptr(), found.nbytes());
            at += found.nbytes();
        }
    ECOPIPE_CHECK(at == all.data() + to_->bytes_);
    to_->found_[micro_batch] = std::move(all);
}

HostTensor RunningStatistics::of(std::uint32_t micro_batch) const { return found_.at(micro_batch); }

Result<void> RunningStatistics::add(std::uint32_t micro_batch, HostTensor found) {
    if (found.dtype() != DType::kU8 || found.bytes() != bytes_)
        return fail(ExitCode::kRunFailed,
                    fmt::format("the statistics of micro-batch {}: expected {} bytes, found {}",
                                micro_batch, bytes_, found.bytes()));
    found_[micro_batch] = std::move(found);
    return {};
}

void RunningStatistics::commit() {
    for (const auto& [micro_batch, found] : found_) {
        const std::byte* at = found.data();
        for (const Statistic& each : statistics_) {
            const at::Tensor& running = (*layers_)[each.layer]->tensors[each.what.buffer].tensor;
            if (running.scalar_type() == at::kDouble)
                follow<double>(running, at, each.what.momentum);
            else
                follow<float>(running, at, each.what.momentum);
            at += running.nbytes();
        }
        if (layers_ == nullptr) continue;
        for (const auto& layer : *layers_)
            for (const std::size_t counter : layer->counters)
                layer->tensors[counter].tensor.data_ptr<std::int64_t>()[0] += 1;
    }
    found_.clear();
}

}  // namespace ecopipe
