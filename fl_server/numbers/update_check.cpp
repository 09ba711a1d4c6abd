#include "fl_server/numbers/update_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/check.h"
#include "core/log.h"
#include "fl_server/numbers/accumulator.h"
#include "fl_server/numbers/vector_clones.h"

namespace ecopipe {
namespace {

// Sums run in a fixed number of lanes, written out, so that every instruction set adds in one
// order.
constexpr std::size_t kLanes = 8;

struct Totals {
    double squares = 0;
    double largest = 0;  // NaN or infinite when a value is
};

// |x - x| is 0 for what is finite and NaN otherwise, so one sum tells whether all were.
template <class T>
inline Totals measure_values(const T* update, const T* base, std::size_t n) {
    std::array<double, kLanes> squares{};
    std::array<double, kLanes> largest{};
    std::array<double, kLanes> poison{};
    const auto one = [&](std::size_t i, std::size_t lane) {
        const auto u = static_cast<double>(update[i]);
        const double delta = u - static_cast<double>(base[i]);
        const double size = std::fabs(delta);
        squares[lane] += delta * delta;
        largest[lane] = size > largest[lane] ? size : largest[lane];
        poison[lane] += u - u;
    };
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
        for (std::size_t lane = 0; lane < kLanes; ++lane) one(i + lane, lane);
    for (; i < n; ++i) one(i, 0);
    Totals totals;
    double poisoned = 0;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
        totals.squares += squares[lane];
        totals.largest = std::max(totals.largest, largest[lane]);
        poisoned += poison[lane];
    }
    if (poisoned != 0 || std::isnan(poisoned)) totals.largest = std::nan("");
    return totals;
}

ECOPIPE_VECTOR_CLONES Totals measure_f32(const float* update, const float* base, std::size_t n) {
    return measure_values(update, base, n);
}
ECOPIPE_VECTOR_CLONES Totals measure_f64(const double* update, const double* base, std::size_t n) {
    return measure_values(update, base, n);
}

// A counter counts batches; no task trains so many.
constexpr std::uint64_t kCountStepMax = std::uint64_t{1} << 40;

std::uint64_t largest_step(const std::byte* update, const std::byte* base, std::size_t n) {
    std::uint64_t largest = 0;
    for (std::size_t i = 0; i < n; ++i) {
        std::int64_t u = 0;
        std::int64_t b = 0;
        std::memcpy(&u, update + i * sizeof u, sizeof u);
        std::memcpy(&b, base + i * sizeof b, sizeof b);
        const auto step =
            static_cast<std::uint64_t>(std::max(u, b)) - static_cast<std::uint64_t>(std::min(u, b));
        largest = std::max(largest, step);
    }
    return largest;
}

// The least value below 0 that training cannot have made, or 0. Batch norm mixes its running
// variance with variances of batches, so who starts from one that a sum of deltas brought below 0
// may leave it there, but not lower.
template <class T>
double least_variance(const T* update, const T* base, std::size_t n) {
    T least = 0;
    for (std::size_t i = 0; i < n; ++i)
        if (update[i] < base[i]) least = std::min(least, update[i]);
    return static_cast<double>(least);
}

}  // namespace

void UpdateMeasure::add(const UpdateMeasure& other) {
    squared_norm += other.squared_norm;
    parameter_max = std::max(parameter_max, other.parameter_max);
    buffer_max = std::max(buffer_max, other.buffer_max);
}

UpdateCheck::UpdateCheck(const ModelLayout& layout, BlockSourcePtr base, std::size_t begin,
                         std::size_t end, std::span<std::byte> scratch)
    : layout_(layout), base_(std::move(base)), end_(end), at_(begin), scratch_(scratch) {
    const auto& blocks = layout_.blocks();
    while (next_block_ < blocks.size() && blocks[next_block_].offset < begin) ++next_block_;
}

Result<void> UpdateCheck::check(const Block& block, const std::byte* update) {
    const DType dtype = layout_.dtype(block);
    const StateKind kind = layout_.kind(block);
    if (kind == StateKind::kInteger && dtype != DType::kI64) return {};  // too narrow to leap
    auto base = base_->read(block.offset, block.bytes, dtype_bytes(dtype), scratch_);
    if (!base) return fail(ExitCode::kRunFailed, base.error().message);
    const auto* before = base->data();
    const std::string& tensor = layout_.tensors()[block.tensor].name;
    const std::string name = printable(tensor);
    if (kind == StateKind::kInteger) {
        const std::uint64_t step = largest_step(update, before, block.elements);
        if (step <= kCountStepMax) return {};
        return fail(ExitCode::kBadFile,
                    fmt::format("tensor {} moves a count by {}, expected at most {}", name, step,
                                kCountStepMax));
    }
    const Totals totals = dtype == DType::kF64
                              ? measure_f64(reinterpret_cast<const double*>(update),
                                            reinterpret_cast<const double*>(before), block.elements)
                              : measure_f32(reinterpret_cast<const float*>(update),
                                            reinterpret_cast<const float*>(before), block.elements);
    if (std::isnan(totals.largest))
        return fail(ExitCode::kBadFile,
                    fmt::format("tensor {} has a value that is not finite", name));
    if (totals.largest > kDeltaMax)
        return fail(ExitCode::kBadFile,
                    fmt::format("tensor {} moves a value by {:g}, expected at most {:g}", name,
                                totals.largest, kDeltaMax));
    if (kind == StateKind::kBuffer && tensor.ends_with("running_var")) {
        const double least =
            dtype == DType::kF64
                ? least_variance(reinterpret_cast<const double*>(update),
                                 reinterpret_cast<const double*>(before), block.elements)
                : least_variance(reinterpret_cast<const float*>(update),
                                 reinterpret_cast<const float*>(before), block.elements);
        if (least < 0)
            return fail(
                ExitCode::kBadFile,
                fmt::format("tensor {} has the variance {:g}, expected 0 or more", name, least));
    }
    if (kind == StateKind::kParameter) {
        measure_.squared_norm += totals.squares;
        measure_.parameter_max = std::max(measure_.parameter_max, totals.largest);
    } else {
        measure_.buffer_max = std::max(measure_.buffer_max, totals.largest);
    }
    return {};
}

Result<void> UpdateCheck::feed(std::span<const std::byte> bytes) {
    ECOPIPE_CHECK(bytes.size() <= end_ - at_);
    const auto& blocks = layout_.blocks();
    while (!bytes.empty()) {
        const Block& block = blocks[next_block_];
        if (pending_.empty() && bytes.size() >= block.bytes &&
            reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(double) == 0) {
            ECOPIPE_RETURN_IF_ERROR(check(block, bytes.data()));
            bytes = bytes.subspan(block.bytes);
            at_ += block.bytes;
            ++next_block_;
            continue;
        }
        pending_.reserve(block.bytes);
        const std::size_t part = std::min(bytes.size(), block.bytes - pending_.size());
        pending_.insert(pending_.end(), bytes.begin(),
                        bytes.begin() + static_cast<std::ptrdiff_t>(part));
        bytes = bytes.subspan(part);
        at_ += part;
        if (pending_.size() < block.bytes) continue;
        ECOPIPE_RETURN_IF_ERROR(check(block, pending_.data()));
        pending_.clear();
        ++next_block_;
    }
    return {};
}

Result<UpdateMeasure> measure_update(const ModelLayout& layout, const BlockSource& update,
                                     BlockSourcePtr base) {
    std::vector<std::byte> base_scratch(kBlockBytesMax);
    UpdateCheck check(layout, std::move(base), 0, layout.bytes(), base_scratch);
    std::vector<std::byte> scratch(kBlockBytesMax);
    for (const Block& block : layout.blocks()) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto bytes,
                                 update.read(block.offset, block.bytes, alignof(double), scratch));
        ECOPIPE_RETURN_IF_ERROR(check.feed(bytes));
    }
    return check.measure();
}

}  // namespace ecopipe
