#include "core/host_tensor.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

namespace ecopipe {
namespace {

TEST(CheckedBytes, RefusesOverflowNegativeAndRank) {
    constexpr auto kBig = std::numeric_limits<std::int64_t>::max();
    EXPECT_EQ(checked_bytes(DType::kF32, Shape{2, 3}), 24U);
    EXPECT_EQ(checked_bytes(DType::kI64, Shape{}), 8U);
    EXPECT_EQ(checked_bytes(DType::kF32, Shape{0, 5}), 0U);
    EXPECT_FALSE(checked_bytes(DType::kF32, Shape{kBig, 2}));
    EXPECT_FALSE(checked_bytes(DType::kF32, Shape{0, kBig, kBig}));
    EXPECT_FALSE(checked_bytes(DType::kF32, Shape{-1}));
    EXPECT_FALSE(checked_bytes(DType::kF32, Shape(9, 1)));
}

TEST(HostTensor, CopyShares_CloneDoesNot) {
    HostTensor a = HostTensor::allocate(DType::kF32, {4});
    a.as<float>()[0] = 1;
    HostTensor shared = a;
    const HostTensor cloned = a.clone();
    shared.as<float>()[0] = 2;
    EXPECT_EQ(a.as<float>()[0], 2);
    EXPECT_EQ(cloned.as<float>()[0], 1);
    EXPECT_EQ(a.elements(), 4);
}

TEST(DTypes, NamesRoundTrip) {
    for (std::uint8_t v = 1; v <= 10; ++v)
        EXPECT_EQ(dtype_named(dtype_name(*dtype_from(v))), dtype_from(v));
    EXPECT_FALSE(dtype_from(0));
    EXPECT_FALSE(dtype_from(11));
    EXPECT_FALSE(dtype_named("F8"));
}

}  // namespace
}  // namespace ecopipe
