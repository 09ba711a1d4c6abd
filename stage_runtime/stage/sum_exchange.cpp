#include "stage_runtime/stage/sum_exchange.h"

#include <algorithm>

#include "core/log.h"

namespace ecopipe {

void SumExchange::set_plan(const PlanIndex* plan, TensorCodec codec) {
    plan_ = nullptr;
    codec_ = codec;
    layers_.clear();
    statistics_awaited_.clear();
    const auto stages = plan->stages_of(device_);
    if (stages.empty() || plan->devices_of(stages.front()).size() < 2) return;
    plan_ = plan;
    stage_ = stages.front();
    const auto devices = plan->devices_of(stage_);
    holders_.assign(devices.begin(), devices.end());
    std::vector<std::size_t> subtrees;
    for (const std::string& holder : holders_)
        subtrees.push_back(plan->sum_tree().subtrees(plan->blocks_of(stage_, holder)).size());
    const StageSums sums = compute_.sums();
    statistics_ = sums.statistics;
    homes_.clear();
    for (const auto& [layer, home] : sum_homes(sums.gradient_bytes, subtrees))
        homes_[layer] = holders_[home];
    router_.set_homes(homes_);
}

// Without those whose blocks have no micro-batch in this step.
std::vector<int> SumExchange::nodes_of(const std::string& holder) const {
    const SumTree& tree = plan_->sum_tree();
    std::vector<int> nodes = tree.subtrees(plan_->blocks_of(stage_, holder));
    std::erase_if(nodes, [&](int node) {
        return static_cast<std::uint32_t>(tree.below(node).first) >= micro_batches_;
    });
    return nodes;
}

std::uint32_t SumExchange::last_of(int node) const {
    const SumTree::Blocks blocks = plan_->sum_tree().below(node);
    for (std::uint32_t m = micro_batches_; m-- > 0;) {
        const int block = plan_->sum_tree().block_of(m);
        if (block >= blocks.first && block < blocks.end) return m;
    }
    return 0;
}

void SumExchange::begin(const RoutedStep& step, std::uint32_t micro_batches) {
    step_ = step;
    micro_batches_ = micro_batches;
    layers_.clear();
    statistics_awaited_.clear();
    const std::vector<int> own = nodes_of(device_);
    final_at_.clear();
    for (const int node : own) final_at_[node] = last_of(node);
    std::set<std::pair<std::string, int>> others;
    for (const std::string& holder : holders_)
        if (holder != device_)
            for (const int node : nodes_of(holder)) others.emplace(holder, node);
    for (const auto& [layer, home] : homes_) {
        Layer& entry = layers_[layer];
        entry.home = home;
        entry.own = {own.begin(), own.end()};
        if (home == device_) entry.awaited = others;
    }
    for (auto& [layer, entry] : layers_) add_up_if_all_are_here(layer, entry);
    if (!statistics_) return;
    for (std::uint32_t m = 0; m < micro_batches; ++m)
        if (plan_->owner_of(stage_, m) != device_) statistics_awaited_.insert(m);
}

EncodedTensor SumExchange::encoded(HostTensor values) const {
    if (codec_ == TensorCodec::kNone) return {std::move(values)};
    return encode_tensor(values, codec_);
}

TensorAddress SumExchange::address(TensorKind kind, int layer) const {
    TensorAddress address;
    address.generation = step_.generation;
    address.step = step_.step;
    address.kind = kind;
    address.producer = static_cast<std::uint32_t>(layer);
    return address;
}

void SumExchange::layer_done(std::uint32_t micro_batch, int layer) {
    const auto found = layers_.find(layer);
    if (found == layers_.end()) return;
    Layer& entry = found->second;
    std::vector<int> final;
    for (const int node : entry.own)
        if (final_at_.at(node) == micro_batch) final.push_back(node);
    for (const int node : final) node_final(layer, entry, node);
}

void SumExchange::node_final(int layer, Layer& entry, int node) {
    entry.own.erase(node);
    if (entry.home == device_) return add_up_if_all_are_here(layer, entry);
    TensorAddress to = address(TensorKind::kGradientSum, layer);
    to.slice = static_cast<std::uint16_t>(node);
    LayerGradient sum = compute_.take_sum(layer, node);
    to.name = std::move(sum.missing);
    router_.send_sum({entry.home}, to, encoded(std::move(sum.values)));
}

void SumExchange::add_up_if_all_are_here(int layer, Layer& entry) {
    if (entry.home != device_ || entry.total || !entry.own.empty() || !entry.awaited.empty())
        return;
    entry.total = true;
    LayerGradient total = compute_.total(layer);
    TensorAddress to = address(TensorKind::kGradientTotal, layer);
    to.name = std::move(total.missing);
    std::vector<std::string> others = holders_;
    std::erase(others, device_);
    const EncodedTensor sent = encoded(std::move(total.values));
    router_.send_sum(others, to, sent);
    // All make the same update.
    if (codec_ != TensorCodec::kNone)
        static_cast<void>(compute_.set_total(layer, {decode_tensor(sent), to.name}));
}

void SumExchange::action_done(const Action& action) {
    const auto micro_batch = static_cast<std::uint32_t>(action.micro_batch);
    if (action.kind == ActionKind::kForward && statistics_) {
        TensorAddress to = address(TensorKind::kStatistics, plan_->layers_of(stage_).first);
        to.micro_batch = micro_batch;
        std::vector<std::string> others = holders_;
        std::erase(others, device_);
        router_.send_sum(others, to, {compute_.statistics({micro_batch})});
    }
    if (action.kind == ActionKind::kBackward || action.kind == ActionKind::kWeightGradient)
        for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer)
            layer_done(micro_batch, layer->first);
}

Result<void> SumExchange::take(const TensorAddress& address, const HostTensor& tensor) {
    const auto unexpected = [&]() -> Result<void> {
        log_debug("a sum of layer {} that nobody owes is dropped", address.producer);
        return {};
    };
    if (address.kind == TensorKind::kStatistics) {
        if (statistics_awaited_.erase(address.micro_batch) == 0) return unexpected();
        return compute_.add_statistics({address.micro_batch}, tensor);
    }
    const auto found = layers_.find(static_cast<int>(address.producer));
    if (found == layers_.end()) return unexpected();
    auto& [layer, entry] = *found;
    const LayerGradient gradient{tensor, address.name};
    if (address.kind == TensorKind::kGradientTotal) {
        if (entry.home == device_ || std::exchange(entry.total, true)) return unexpected();
        return compute_.set_total(layer, gradient);
    }
    const auto owed = std::find_if(
        entry.awaited.begin(), entry.awaited.end(),
        [&](const auto& each) { return each.second == static_cast<int>(address.slice); });
    if (owed == entry.awaited.end()) return unexpected();
    entry.awaited.erase(owed);
    ECOPIPE_RETURN_IF_ERROR(compute_.add_sum(layer, static_cast<int>(address.slice), gradient));
    add_up_if_all_are_here(layer, entry);
    return {};
}

bool SumExchange::complete() const {
    return statistics_awaited_.empty() &&
           std::all_of(layers_.begin(), layers_.end(),
                       [](const auto& layer) { return layer.second.total; });
}

std::string SumExchange::waits_for() const {
    for (const auto& [layer, entry] : layers_) {
        if (entry.total) continue;
        return entry.home != device_   ? entry.home
               : entry.awaited.empty() ? device_
                                       : entry.awaited.begin()->first;
    }
    return statistics_awaited_.empty() ? std::string()
                                       : plan_->owner_of(stage_, *statistics_awaited_.begin());
}

}  // namespace ecopipe
