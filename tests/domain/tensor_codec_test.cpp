#include "domain/tensor_codec.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/random.h"

namespace ecopipe {
namespace {

HostTensor floats(const std::vector<float>& values) {
    HostTensor tensor =
        HostTensor::allocate(DType::kF32, {static_cast<std::int64_t>(values.size())});
    std::copy(values.begin(), values.end(), tensor.as<float>().begin());
    return tensor;
}

// What `value` becomes on the other side.
float through(float value, TensorCodec codec) {
    const HostTensor decoded = decode_tensor(encode_tensor(floats({value}), codec));
    return decoded.as<float>()[0];
}

// The value of a half, by the definition of IEEE 754.
double half_value(unsigned bits) {
    const double sign = (bits & 0x8000U) != 0 ? -1 : 1;
    const unsigned exponent = (bits >> 10U) & 31U;
    const unsigned mantissa = bits & 1023U;
    if (exponent == 0) return sign * std::ldexp(mantissa, -24);
    return sign * std::ldexp(1024 + mantissa, static_cast<int>(exponent) - 25);
}

TEST(TensorCodec, EveryHalfSurvivesUnchanged) {
    for (unsigned bits = 0; bits < 0x10000U; ++bits) {
        if (((bits >> 10U) & 31U) == 31) continue;  // infinities and NaN: below
        const auto value = static_cast<float>(half_value(bits));
        EXPECT_EQ(std::bit_cast<std::uint32_t>(through(value, TensorCodec::kFp16)),
                  std::bit_cast<std::uint32_t>(value))
            << bits;
    }
}

TEST(TensorCodec, HalvesRoundToTheNearestAndTiesToEven) {
    for (unsigned bits = 0; bits < 0x7bffU; ++bits) {  // between each half and the next
        const double low = half_value(bits);
        const double high = half_value(bits + 1);
        const auto middle = static_cast<float>((low + high) / 2);
        EXPECT_EQ(through(middle, TensorCodec::kFp16), (bits & 1U) == 0 ? low : high) << bits;
        EXPECT_EQ(through(std::nextafter(middle, 1e9F), TensorCodec::kFp16), high) << bits;
        EXPECT_EQ(through(std::nextafter(middle, -1.0F), TensorCodec::kFp16), low) << bits;
    }
    EXPECT_EQ(through(65519.99F, TensorCodec::kFp16), 65504.0F);
    EXPECT_EQ(through(65520.0F, TensorCodec::kFp16), std::numeric_limits<float>::infinity());
    EXPECT_EQ(through(-1e30F, TensorCodec::kFp16), -std::numeric_limits<float>::infinity());
}

TEST(TensorCodec, BfloatKeepsEightBitsAndTiesToEven) {
    EXPECT_EQ(through(1.0F, TensorCodec::kBf16), 1.0F);
    EXPECT_EQ(through(1.00390625F, TensorCodec::kBf16), 1.0F);       // half a step: to even
    EXPECT_EQ(through(1.01171875F, TensorCodec::kBf16), 1.015625F);  // one and a half: to even
    EXPECT_EQ(through(1.004F, TensorCodec::kBf16), 1.0078125F);
    EXPECT_EQ(through(std::numeric_limits<float>::max(), TensorCodec::kBf16),
              std::numeric_limits<float>::infinity());
}

TEST(TensorCodec, Int8IsWithinHalfAStepAndKeepsZeroAndTheLargest) {
    Rng rng(3);
    std::vector<float> values(1001);
    for (float& value : values) value = static_cast<float>(rng.uniform(-5, 5));
    values[0] = 0;
    values[1] = -6.35F;
    const EncodedTensor encoded = encode_tensor(floats(values), TensorCodec::kInt8);
    const HostTensor decoded = decode_tensor(encoded);
    for (std::size_t i = 0; i < values.size(); ++i)
        EXPECT_NEAR(decoded.as<float>()[i], values[i], encoded.scale * 0.5001) << i;
    EXPECT_EQ(decoded.as<float>()[0], 0.0F);
    EXPECT_EQ(encoded.tensor.as<std::int8_t>()[1], -127);
    const HostTensor zeros = decode_tensor(encode_tensor(floats({0, 0}), TensorCodec::kInt8));
    EXPECT_EQ(zeros.as<float>()[1], 0.0F);
    EXPECT_EQ(through(1e-42F, TensorCodec::kInt8), 0.0F);  // its inverse overflows
}

TEST(TensorCodec, WhatIsNotFiniteStaysSo) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    for (const TensorCodec codec : {TensorCodec::kFp16, TensorCodec::kBf16, TensorCodec::kInt8}) {
        EXPECT_TRUE(std::isnan(through(nan, codec)));
        EXPECT_FALSE(std::isfinite(through(infinity, codec)));
    }
}

TEST(TensorCodec, OtherElementTypesPassUnchanged) {
    const HostTensor tokens = HostTensor::allocate(DType::kI64, {4});
    const EncodedTensor encoded = encode_tensor(tokens, TensorCodec::kInt8);
    EXPECT_EQ(encoded.codec, TensorCodec::kNone);
    EXPECT_EQ(encoded.tensor.data(), tokens.data());
}

TEST(TensorCodec, ErrorFeedbackLosesNothingOverTime) {
    const HostTensor gradient = floats({0.3F, -0.004F, 1.0F});  // -0.004 alone rounds to nothing
    ErrorFeedback feedback;
    double sum = 0;
    for (int i = 0; i < 1000; ++i) {
        sum += decode_tensor(feedback.encode(gradient, TensorCodec::kInt8)).as<float>()[1];
        feedback.commit();
    }
    EXPECT_NEAR(sum, -4.0, 0.01);
}

TEST(TensorCodec, ResidualsChangeByCommitAlone) {
    ErrorFeedback feedback;
    const HostTensor gradient = floats({0.3F, -0.004F, 1.0F});
    static_cast<void>(feedback.encode(gradient, TensorCodec::kInt8));
    EXPECT_FALSE(feedback.residual().defined());
    feedback.commit();
    const float after_one = feedback.residual().as<float>()[1];
    EXPECT_NE(after_one, 0.0F);
    static_cast<void>(feedback.encode(gradient, TensorCodec::kInt8));
    feedback.discard();
    EXPECT_EQ(feedback.residual().as<float>()[1], after_one);
    // A shorter micro-batch leaves the rest of the residual alone.
    const float last = feedback.residual().as<float>()[2];
    static_cast<void>(feedback.encode(floats({5.0F}), TensorCodec::kFp16));
    feedback.commit();
    EXPECT_EQ(feedback.residual().shape(), (Shape{3}));
    EXPECT_EQ(feedback.residual().as<float>()[2], last);
}

}  // namespace
}  // namespace ecopipe
