#include "fl_server/numbers/aggregator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>
#include <tuple>
#include <utility>

#include "core/check.h"
#include "core/files.h"
#include "fl_server/numbers/robust_rules.h"
#include "fl_server/numbers/server_optimizer.h"

namespace ecopipe {
namespace {

using Scratch = std::array<std::byte, kBlockBytesMax>;

template <class T>
void keep_maximum(std::byte* into, const std::byte* from, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes; at += sizeof(T)) {
        T a;
        T b;
        std::memcpy(&a, into + at, sizeof a);
        std::memcpy(&b, from + at, sizeof b);
        if (b > a) std::memcpy(into + at, &b, sizeof b);
    }
}

// `values` as the block's type; false when one is not finite there.
template <class T>
bool write_values(const double* values, std::size_t n, char* out) {
    bool finite = true;
    for (std::size_t i = 0; i < n; ++i) {
        const auto value = static_cast<T>(values[i]);
        finite = finite && std::isfinite(value);
        std::memcpy(out + i * sizeof value, &value, sizeof value);
    }
    return finite;
}

tl::unexpected<Error> refused(std::string why) {
    return fail(ExitCode::kRunFailed, std::move(why));
}

}  // namespace

struct Aggregator::Plan {
    struct Close {
        const Accumulator* sums;
        std::vector<KeptUpdate> updates;  // sorted; empty for the mean
        Combine combine;
        double divisor;
    };
    struct Input {
        enum class Kind { kSource, kDelta, kKept } kind;
        const BlockSource* source;
        std::size_t index;  // of the close or of the keep
        double coefficient;
    };
    std::map<SlotId, std::size_t> close_of;
    std::map<std::string, std::size_t> keep_of;
    std::vector<Close> closes;
    std::vector<std::vector<Input>> keep_inputs;
    std::vector<std::string> keep_bytes;
    std::vector<Input> next_inputs;
    std::string next;
    std::optional<ServerOptimizer> optimizer;
    std::string moments;
    std::vector<BlockSourcePtr> sources;  // that inputs point to
};

Aggregator::Aggregator(const ModelLayout& layout, AggregatorState start, BaseLookup bases,
                       AggregatorOptions options)
    : layout_(layout),
      state_(std::move(start)),
      global_source_(memory_source(state_.global)),
      bases_(std::move(bases)),
      options_(options),
      integers_(layout.integer_bytes(), '\0') {
    ECOPIPE_CHECK(state_.global->size() == layout_.bytes());
    for (const Block& block : layout_.blocks())
        if (layout_.kind(block) == StateKind::kInteger)
            std::memcpy(integers_.data() + block.lane, state_.global->data() + block.offset,
                        block.bytes);
}

std::size_t Aggregator::folds(SlotId slot) const {
    const auto found = slots_.find(slot);
    return found == slots_.end() ? 0 : found->second.sums->folds();
}

double Aggregator::clip_factor(const UpdateMeasure& measure) const {
    const double norm = std::sqrt(measure.squared_norm);
    return options_.norm_clip > 0 && norm > options_.norm_clip ? options_.norm_clip / norm : 1;
}

Result<BlockSourcePtr> Aggregator::base(std::uint64_t version) const {
    if (version == state_.version) return global_source_;
    if (!bases_) return refused(fmt::format("version {} is not kept", version));
    return bases_(version);
}

void Aggregator::merge_integers(const Block& block, const std::byte* update) {
    auto* into = reinterpret_cast<std::byte*>(integers_.data()) + block.lane;
    switch (layout_.dtype(block)) {
        case DType::kI64:
            return keep_maximum<std::int64_t>(into, update, block.bytes);
        case DType::kI32:
            return keep_maximum<std::int32_t>(into, update, block.bytes);
        case DType::kI16:
            return keep_maximum<std::int16_t>(into, update, block.bytes);
        case DType::kI8:
            return keep_maximum<std::int8_t>(into, update, block.bytes);
        default:
            return keep_maximum<std::uint8_t>(into, update, block.bytes);
    }
}

Result<void> Aggregator::each_range(
    const std::function<Result<void>(std::size_t, std::size_t)>& work) const {
    const std::size_t blocks = layout_.blocks().size();
    const std::size_t parts =
        std::clamp<std::size_t>(static_cast<std::size_t>(options_.threads), 1, blocks);
    std::vector<Result<void>> results(parts);
    {
        std::vector<std::jthread> threads;
        for (std::size_t p = 1; p < parts; ++p)
            threads.emplace_back(
                [&, p] { results[p] = work(blocks * p / parts, blocks * (p + 1) / parts); });
        results[0] = work(0, blocks / parts);
    }
    for (const Result<void>& result : results) ECOPIPE_RETURN_IF_ERROR(result);
    return {};
}

Result<void> Aggregator::fold(const Fold& fold, const CheckedUpdate& update) {
    if (!(fold.weight > 0) || fold.weight > kFoldWeightMax)
        return refused(
            fmt::format("a weight of {} is outside (0, {}]", fold.weight, kFoldWeightMax));
    if (update.measure.parameter_max > kDeltaMax) return refused("the update was not admitted");
    ECOPIPE_ASSIGN_OR_RETURN(BlockSourcePtr from, base(update.base_version));
    Slot& slot = slots_[fold.slot];
    if (!slot.sums) {
        if (free_.empty()) {
            slot.sums = std::make_unique<Accumulator>(layout_);
        } else {
            slot.sums = std::move(free_.back());
            free_.pop_back();
        }
    }
    if (slot.sums->folds() >= kFoldsMax)
        return refused(fmt::format("a slot takes at most {} updates", kFoldsMax));
    const double clip = clip_factor(update.measure);
    slot.sums->begin(fold.weight, clip, {update.measure.parameter_max});
    const auto add = [&](std::size_t first, std::size_t last) -> Result<void> {
        alignas(64) Scratch update_scratch;
        alignas(64) Scratch base_scratch;
        for (std::size_t b = first; b < last; ++b) {
            const Block& block = layout_.blocks()[b];
            const std::size_t size = dtype_bytes(layout_.dtype(block));
            ECOPIPE_ASSIGN_OR_RETURN(
                const auto theirs,
                update.bytes->read(block.offset, block.bytes, size, update_scratch));
            if (layout_.kind(block) == StateKind::kInteger) {
                merge_integers(block, theirs.data());
                continue;
            }
            ECOPIPE_ASSIGN_OR_RETURN(const auto ours,
                                     from->read(block.offset, block.bytes, size, base_scratch));
            slot.sums->add(block, layout_.kind(block), layout_.dtype(block), theirs.data(),
                           ours.data());
        }
        return {};
    };
    ECOPIPE_RETURN_IF_ERROR(each_range(add));
    if (options_.keep_sources)
        slot.kept.push_back(
            {fold.cluster, fold.sequence, clip, update.bytes, update.base_version, nullptr});
    return {};
}

std::string Aggregator::next_memory() {
    if (spare_ && spare_.use_count() == 1) {
        std::atomic_thread_fence(std::memory_order_acquire);  // its last reader's release
        std::string memory = std::move(*spare_);
        spare_.reset();
        if (memory.size() == layout_.bytes()) return memory;
    }
    return std::string(layout_.bytes(), '\0');
}

Result<Aggregator::Plan> Aggregator::resolve(const Recipe& recipe) {
    Plan plan;
    for (const Recipe::Close& close : recipe.close) {
        const auto slot = slots_.find(close.slot);
        const std::size_t folds = this->folds(close.slot);
        if (const std::string why = combine_refusal(close.combine, folds); !why.empty())
            return refused(fmt::format("slot {}: {}", close.slot, why));
        Plan::Close closing{slot->second.sums.get(), {}, close.combine, close.combine.divisor};
        if (closing.divisor == 0) closing.divisor = closing.sums->weight_sum();
        if (close.combine.rule != Combine::Rule::kMean) {
            if (slot->second.kept.size() != folds)
                return refused(fmt::format("slot {}: its updates were not kept", close.slot));
            closing.updates = slot->second.kept;
            for (KeptUpdate& kept : closing.updates) {
                ECOPIPE_ASSIGN_OR_RETURN(kept.base, base(kept.base_version));
            }
            std::sort(closing.updates.begin(), closing.updates.end(),
                      [](const KeptUpdate& a, const KeptUpdate& b) {
                          return std::tie(a.cluster, a.sequence) < std::tie(b.cluster, b.sequence);
                      });
            if (close.combine.rule == Combine::Rule::kMultiKrum) {
                ECOPIPE_ASSIGN_OR_RETURN(
                    closing.updates,
                    krum_choice(layout_, std::move(closing.updates), close.combine));
            }
        }
        if (!plan.close_of.emplace(close.slot, plan.closes.size()).second)
            return refused(fmt::format("slot {} is closed twice", close.slot));
        plan.closes.push_back(std::move(closing));
    }
    const auto inputs_of = [&](const std::vector<Term>& terms) -> Result<std::vector<Plan::Input>> {
        std::vector<Plan::Input> inputs;
        for (const Term& term : terms) {
            Plan::Input input{Plan::Input::Kind::kSource, nullptr, 0, term.coefficient};
            if (!std::isfinite(term.coefficient)) return refused("a coefficient is not finite");
            if (term.source == Term::Source::kDelta) {
                const auto close = plan.close_of.find(term.slot);
                if (close == plan.close_of.end())
                    return refused(fmt::format("slot {} is used but not closed", term.slot));
                input.kind = Plan::Input::Kind::kDelta;
                input.index = close->second;
            } else if (term.source == Term::Source::kStored && plan.keep_of.contains(term.stored)) {
                input.kind = Plan::Input::Kind::kKept;
                input.index = plan.keep_of.at(term.stored);
            } else {
                BlockSourcePtr source = global_source_;
                if (term.source == Term::Source::kBase) {
                    ECOPIPE_ASSIGN_OR_RETURN(source, base(term.version));
                } else if (term.source == Term::Source::kStored) {
                    const auto stored = state_.stored.find(term.stored);
                    if (stored == state_.stored.end())
                        return refused(fmt::format("no model is kept as '{}'", term.stored));
                    source = memory_source(stored->second);
                }
                input.source = source.get();
                plan.sources.push_back(std::move(source));
            }
            inputs.push_back(input);
        }
        return inputs;
    };
    for (const Recipe::Keep& keep : recipe.keep) {
        ECOPIPE_ASSIGN_OR_RETURN(auto inputs, inputs_of(keep.terms));
        plan.keep_of[keep.name] = plan.keep_inputs.size();
        plan.keep_inputs.push_back(std::move(inputs));
        plan.keep_bytes.emplace_back(layout_.bytes(), '\0');
    }
    ECOPIPE_ASSIGN_OR_RETURN(plan.next_inputs, inputs_of(recipe.next));
    if (plan.next_inputs.empty()) return refused("a recipe makes no next model");
    plan.optimizer = recipe.optimizer;
    if (plan.optimizer) {
        const std::size_t floats = layout_.narrow_elements() + layout_.wide_elements();
        if (state_.moments) {
            plan.moments = *state_.moments;
        } else {
            plan.moments.assign(2 * floats * sizeof(float), '\0');
            const auto start = static_cast<float>(plan.optimizer->tau * plan.optimizer->tau);
            auto* v = reinterpret_cast<float*>(plan.moments.data()) + floats;
            std::fill_n(v, floats, start);
        }
    }
    plan.next = next_memory();
    return plan;
}

Result<void> Aggregator::commit_blocks(Plan& plan, std::size_t first, std::size_t last) const {
    std::vector<std::vector<double>> deltas(plan.closes.size(),
                                            std::vector<double>(kBlockElements));
    std::vector<std::vector<double>> kept(plan.keep_bytes.size(),
                                          std::vector<double>(kBlockElements));
    std::vector<double> input(kBlockElements);
    std::vector<double> next(kBlockElements);
    const std::size_t floats = layout_.narrow_elements() + layout_.wide_elements();
    for (std::size_t b = first; b < last; ++b) {
        const Block& block = layout_.blocks()[b];
        const std::size_t n = block.elements;
        if (layout_.kind(block) == StateKind::kInteger) {
            const char* maxima = integers_.data() + block.lane;
            std::memcpy(plan.next.data() + block.offset, maxima, block.bytes);
            for (std::string& bytes : plan.keep_bytes)
                std::memcpy(bytes.data() + block.offset, maxima, block.bytes);
            continue;
        }
        for (std::size_t c = 0; c < plan.closes.size(); ++c) {
            const Plan::Close& close = plan.closes[c];
            if (close.combine.rule == Combine::Rule::kMean) {
                close.sums->mean(block, close.divisor, deltas[c].data());
            } else {
                ECOPIPE_RETURN_IF_ERROR(
                    combine_block(layout_, block, close.updates, close.combine, deltas[c].data()));
            }
        }
        const auto sum = [&](const std::vector<Plan::Input>& terms,
                             std::vector<double>& out) -> Result<void> {
            std::fill_n(out.begin(), n, 0.0);
            for (const Plan::Input& term : terms) {
                const double* values = input.data();
                if (term.kind == Plan::Input::Kind::kDelta)
                    values = deltas[term.index].data();
                else if (term.kind == Plan::Input::Kind::kKept)
                    values = kept[term.index].data();
                else
                    ECOPIPE_RETURN_IF_ERROR(
                        read_values(layout_, block, *term.source, 0, n, input.data()));
                for (std::size_t i = 0; i < n; ++i) out[i] += term.coefficient * values[i];
            }
            return {};
        };
        const auto write = [&](const std::vector<double>& values,
                               std::string& into) -> Result<void> {
            const bool finite =
                layout_.dtype(block) == DType::kF64
                    ? write_values<double>(values.data(), n, into.data() + block.offset)
                    : write_values<float>(values.data(), n, into.data() + block.offset);
            if (finite) return {};
            return refused(fmt::format("tensor {} would get a value that is not finite",
                                       layout_.tensors()[block.tensor].name));
        };
        for (std::size_t k = 0; k < plan.keep_inputs.size(); ++k) {
            ECOPIPE_RETURN_IF_ERROR(sum(plan.keep_inputs[k], kept[k]));
            ECOPIPE_RETURN_IF_ERROR(write(kept[k], plan.keep_bytes[k]));
            // What later terms see is what is stored.
            if (layout_.dtype(block) == DType::kF32)
                for (std::size_t i = 0; i < n; ++i)
                    kept[k][i] = static_cast<double>(static_cast<float>(kept[k][i]));
        }
        ECOPIPE_RETURN_IF_ERROR(sum(plan.next_inputs, next));
        if (plan.optimizer && layout_.kind(block) == StateKind::kParameter) {
            ECOPIPE_RETURN_IF_ERROR(
                read_values(layout_, block, *global_source_, 0, n, input.data()));
            const std::size_t at =
                block.narrow ? block.lane : layout_.narrow_elements() + block.lane;
            auto* m = reinterpret_cast<float*>(plan.moments.data()) + at;
            optimizer_step(*plan.optimizer, input.data(), n, m, m + floats, next.data());
        }
        ECOPIPE_RETURN_IF_ERROR(write(next, plan.next));
    }
    return {};
}

Result<Aggregator::Committed> Aggregator::commit(const Recipe& recipe) {
    ECOPIPE_ASSIGN_OR_RETURN(Plan plan, resolve(recipe));
    ECOPIPE_RETURN_IF_ERROR(each_range(
        [&](std::size_t first, std::size_t last) { return commit_blocks(plan, first, last); }));
    for (const auto& [name, index] : plan.keep_of)
        state_.stored[name] =
            std::make_shared<const std::string>(std::move(plan.keep_bytes[index]));
    if (plan.optimizer)
        state_.moments = std::make_shared<const std::string>(std::move(plan.moments));
    for (const auto& [id, index] : plan.close_of) {
        const auto slot = slots_.find(id);
        slot->second.sums->reset();
        free_.push_back(std::move(slot->second.sums));
        slots_.erase(slot);
    }
    auto made = std::make_shared<std::string>(std::move(plan.next));
    spare_ = std::exchange(own_, made);
    state_.global = made;
    global_source_ = memory_source(state_.global);
    ++state_.version;
    return Committed{state_.version, sha256_hex(*made)};
}

}  // namespace ecopipe
