#pragma once
// Sums of weighted deltas in fixed point, so that the sum is the same whatever order they come in:
// integer addition is associative, floating addition is not.
//
// One element of one update contributes q = rint(f * (u - b) * 2^40), with f = weight * clip
// factor, computed in double. F32 parameters are summed in int64; floating buffers and F64 in 128
// bits.
//
// Overflow is impossible. A fold is refused unless 0 < weight <= 2^40, |u - b| <= 2^30 for every
// element (admission guarantees it) and fewer than 2^16 were folded: |sum| * 2^40 <=
// 2^(16+40+30+40) = 2^126 fits 128 bits. For int64 the bound on the sum, adding f * max |u - b| of
// each update, is kept; before it could pass 2^22 the sums are widened to 128 bits, exactly. So
// when that happens, early or late, changes no bit of the result.
//
// Error: u - b is exact in double for F32 (unless exponents differ by more than 28), the product is
// rounded to 53 bits and then to a multiple of 2^-40. After n updates a sum is off by at most
// n * 2^-41 + 2^-53 * sum of |f * (u - b)|; the mean, divided by at least the sum of weights, by
// at most 2^-41 / (mean weight) plus the relative 2^-53: below half an F32 ulp of any weight above
// 2^-17 when the mean weight is 1, and the more samples count, the smaller.

#include <cstdint>
#include <memory>
#include <span>

#include "fl_server/numbers/model_layout.h"

namespace ecopipe {

__extension__ typedef __int128 Int128;

inline constexpr int kFixedPointBits = 40;
inline constexpr double kFoldWeightMax = 0x1p40;
inline constexpr double kDeltaMax = 0x1p30;      // of one element, checked at admission
inline constexpr double kNarrowSumMax = 0x1p22;  // in units of weight * delta
inline constexpr std::uint64_t kFoldsMax = 1U << 16;

// Zeroed memory on a cache line's boundary, in large pages where the system has them, touched once
// so that later passes take no page fault.
template <class T>
class AlignedArray {
  public:
    AlignedArray() = default;
    explicit AlignedArray(std::size_t size);
    [[nodiscard]] T* data() { return data_.get(); }
    [[nodiscard]] const T* data() const { return data_.get(); }
    [[nodiscard]] std::size_t size() const { return size_; }
    void clear();  // zeroes

  private:
    struct Free {
        void operator()(T* p) const;
    };
    std::unique_ptr<T, Free> data_;
    std::size_t size_ = 0;
};

// What an update's elements may do to a sum, from its admission.
struct Reach {
    double parameter_max = 0;  // largest |u - b| of its parameters
};

// One slot's sums. Not thread-safe; `add` may run on several threads for different blocks after one
// `begin`.
class Accumulator {
  public:
    explicit Accumulator(const ModelLayout& layout);

    void reset();
    // Before the blocks of one update: counts it and widens the narrow sums when its reach demands
    // it.
    void begin(double weight, double clip, const Reach& reach);
    // `update` and `base` hold the block's elements, aligned for their type.
    void add(const Block& block, StateKind kind, DType dtype, const std::byte* update,
             const std::byte* base);
    // The block's sums / divisor.
    void mean(const Block& block, double divisor, double* out) const;

    [[nodiscard]] std::uint64_t folds() const { return folds_; }
    [[nodiscard]] double weight_sum() const;
    [[nodiscard]] bool widened() const { return widened_.size() != 0; }
    [[nodiscard]] std::size_t memory_bytes() const;

  private:
    AlignedArray<std::int64_t> narrow_;  // empty while widened_ is not, which takes its place
    AlignedArray<Int128> widened_;
    AlignedArray<Int128> wide_;
    std::uint64_t folds_ = 0;
    Int128 weights_ = 0;  // multiples of 2^-64
    double bound_ = 0;    // of any narrow sum
    double factor_ = 0;   // of the update at hand
    double weight_ = 0;
    bool exact_by_magic_ = false;  // every product of the update at hand is below 2^51 units
};

}  // namespace ecopipe
