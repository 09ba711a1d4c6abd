#include "fl_server/numbers/accumulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/check.h"
#include "fl_server/numbers/vector_clones.h"

namespace ecopipe {
namespace {

constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kLargePage = 2U << 20;
constexpr double kUnit = 0x1p40;
static_assert(kFixedPointBits == 40);
// Adding 1.5 * 2^52 rounds a double below 2^51 to an integer, to nearest even like rint, and leaves
// it in the low bits.
constexpr double kMagic = 0x1.8p52;
constexpr double kMagicLimit = 0x1p51;

ECOPIPE_VECTOR_CLONES void add_small(std::int64_t* sums, const float* update, const float* base,
                                     std::size_t n, double factor) {
    for (std::size_t i = 0; i < n; ++i) {
        const double delta = static_cast<double>(update[i]) - static_cast<double>(base[i]);
        sums[i] += std::bit_cast<std::int64_t>(delta * factor + kMagic) -
                   std::bit_cast<std::int64_t>(kMagic);
    }
}

void add_large(std::int64_t* sums, const float* update, const float* base, std::size_t n,
               double factor) {
    for (std::size_t i = 0; i < n; ++i)
        sums[i] +=
            std::llrint((static_cast<double>(update[i]) - static_cast<double>(base[i])) * factor);
}

template <class T>
void add_wide(Int128* sums, const T* update, const T* base, std::size_t n, double factor) {
    // The cast of an integral double is exact.
    for (std::size_t i = 0; i < n; ++i)
        sums[i] += static_cast<Int128>(
            std::rint((static_cast<double>(update[i]) - static_cast<double>(base[i])) * factor));
}

template <class T>
void divide(const T* sums, std::size_t n, double divisor, double* out) {
    for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<double>(sums[i]) / divisor;
}

}  // namespace

template <class T>
AlignedArray<T>::AlignedArray(std::size_t size) : size_(size) {
    if (size == 0) return;
    // Only whole large pages are one: what is smaller lies like any other memory.
    const std::size_t alignment = size * sizeof(T) >= kLargePage ? kLargePage : kCacheLine;
    const std::size_t bytes = (size * sizeof(T) + alignment - 1) / alignment * alignment;
    data_.reset(static_cast<T*>(std::aligned_alloc(alignment, bytes)));
    if (!data_) throw std::bad_alloc();
    // Without them it is only slower.
    if (alignment == kLargePage) ::madvise(data_.get(), bytes, MADV_HUGEPAGE);
    clear();
}
template <class T>
void AlignedArray<T>::clear() {
    if (size_ != 0) std::memset(data_.get(), 0, size_ * sizeof(T));
}
template <class T>
void AlignedArray<T>::Free::operator()(T* p) const {
    std::free(p);
}
template class AlignedArray<std::int64_t>;
template class AlignedArray<Int128>;
template class AlignedArray<float>;

Accumulator::Accumulator(const ModelLayout& layout)
    : narrow_(layout.narrow_elements()), wide_(layout.wide_elements()) {}

void Accumulator::reset() {
    if (widened()) {
        narrow_ = AlignedArray<std::int64_t>(widened_.size());
        widened_ = {};
    } else {
        narrow_.clear();
    }
    wide_.clear();
    folds_ = 0;
    weights_ = 0;
    bound_ = 0;
}

void Accumulator::begin(double weight, double clip, const Reach& reach) {
    ECOPIPE_CHECK(weight > 0 && weight <= kFoldWeightMax && clip >= 0 && clip <= 1);
    ECOPIPE_CHECK(reach.parameter_max <= kDeltaMax && folds_ < kFoldsMax);
    ++folds_;
    weights_ += static_cast<Int128>(std::ldexp(weight, 64));
    weight_ = weight * kUnit;
    factor_ = weight * clip * kUnit;
    const double largest = weight * clip * reach.parameter_max;
    exact_by_magic_ = largest * kUnit < kMagicLimit;
    bound_ += largest;
    if (bound_ <= kNarrowSumMax || widened()) return;
    widened_ = AlignedArray<Int128>(narrow_.size());
    std::copy_n(narrow_.data(), narrow_.size(), widened_.data());
    narrow_ = {};
}

void Accumulator::add(const Block& block, StateKind kind, DType dtype, const std::byte* update,
                      const std::byte* base) {
    const auto f32 = [](const std::byte* p) { return reinterpret_cast<const float*>(p); };
    const auto f64 = [](const std::byte* p) { return reinterpret_cast<const double*>(p); };
    const double factor = kind == StateKind::kParameter ? factor_ : weight_;
    if (!block.narrow) {
        Int128* sums = wide_.data() + block.lane;
        if (dtype == DType::kF64)
            add_wide(sums, f64(update), f64(base), block.elements, factor);
        else
            add_wide(sums, f32(update), f32(base), block.elements, factor);
    } else if (widened()) {
        add_wide(widened_.data() + block.lane, f32(update), f32(base), block.elements, factor);
    } else if (exact_by_magic_) {
        add_small(narrow_.data() + block.lane, f32(update), f32(base), block.elements, factor);
    } else {
        add_large(narrow_.data() + block.lane, f32(update), f32(base), block.elements, factor);
    }
}

void Accumulator::mean(const Block& block, double divisor, double* out) const {
    const double scaled = divisor * kUnit;
    if (!block.narrow)
        divide(wide_.data() + block.lane, block.elements, scaled, out);
    else if (widened())
        divide(widened_.data() + block.lane, block.elements, scaled, out);
    else
        divide(narrow_.data() + block.lane, block.elements, scaled, out);
}

double Accumulator::weight_sum() const { return std::ldexp(static_cast<double>(weights_), -64); }

std::size_t Accumulator::memory_bytes() const {
    return narrow_.size() * sizeof(std::int64_t) +
           (widened_.size() + wide_.size()) * sizeof(Int128);
}

}  // namespace ecopipe
