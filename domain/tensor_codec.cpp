#include "domain/tensor_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "core/narrow_floats.h"

namespace ecopipe {
namespace {

struct CodecInfo {
    std::string_view name;
    DType dtype;
};
constexpr std::array<CodecInfo, 4> kCodecs{
    {{"fp32", DType::kF32}, {"fp16", DType::kF16}, {"bf16", DType::kBF16}, {"int8", DType::kI8}}};

// 0 for a tensor of zeros, NaN when an element is not finite.
float int8_scale(std::span<const float> values) {
    float largest = 0;
    bool finite = true;
    for (const float value : values) {
        const float magnitude = std::fabs(value);
        finite &= magnitude <= std::numeric_limits<float>::max();
        largest = std::max(largest, magnitude);
    }
    return finite ? largest / 127 : std::numeric_limits<float>::quiet_NaN();
}

// Bytes of the samples that both hold: they agree in all dimensions but the first.
std::size_t common_floats(const HostTensor& a, const HostTensor& b) {
    if (!a.defined() || !b.defined() || a.shape().size() != b.shape().size() || a.shape().empty() ||
        !std::equal(a.shape().begin() + 1, a.shape().end(), b.shape().begin() + 1))
        return 0;
    return std::min(a.bytes(), b.bytes()) / sizeof(float);
}

}  // namespace

std::optional<TensorCodec> codec_named(std::string_view name) {
    for (std::size_t i = 0; i < kCodecs.size(); ++i)
        if (kCodecs[i].name == name) return static_cast<TensorCodec>(i);
    return std::nullopt;
}

std::string_view codec_name(TensorCodec codec) {
    return kCodecs[static_cast<std::size_t>(codec)].name;
}

DType encoded_dtype(TensorCodec codec) { return kCodecs[static_cast<std::size_t>(codec)].dtype; }

EncodedTensor encode_tensor(const HostTensor& tensor, TensorCodec codec) {
    if (codec == TensorCodec::kNone || tensor.dtype() != DType::kF32) return {tensor};
    const std::span<const float> in = tensor.as<float>();
    EncodedTensor encoded{HostTensor::allocate(encoded_dtype(codec), tensor.shape()), codec, 1};
    if (codec == TensorCodec::kInt8) {
        encoded.scale = int8_scale(in);
        const std::span<std::int8_t> out = encoded.tensor.as<std::int8_t>();
        const float inverse = encoded.scale > 0 ? 1 / encoded.scale : 0;
        // An inverse that overflowed belongs to values that round to nothing.
        const float factor = std::isfinite(inverse) ? inverse : 0;
        for (std::size_t i = 0; i < in.size(); ++i)
            out[i] = static_cast<std::int8_t>(
                std::isfinite(encoded.scale) ? std::nearbyint(in[i] * factor) : 0);
        return encoded;
    }
    const std::span<std::uint16_t> out = encoded.tensor.as<std::uint16_t>();
    if (codec == TensorCodec::kFp16) {
        for (std::size_t i = 0; i < in.size(); ++i) out[i] = to_half(in[i]);
    } else {
        for (std::size_t i = 0; i < in.size(); ++i) out[i] = to_bfloat(in[i]);
    }
    return encoded;
}

double codec_ratio(TensorCodec codec) {
    return static_cast<double>(dtype_bytes(encoded_dtype(codec))) /
           static_cast<double>(dtype_bytes(DType::kF32));
}

HostTensor decode_tensor(const EncodedTensor& encoded) {
    if (encoded.codec == TensorCodec::kNone) return encoded.tensor;
    ECOPIPE_CHECK(encoded.tensor.dtype() == encoded_dtype(encoded.codec));
    HostTensor tensor = HostTensor::allocate(DType::kF32, encoded.tensor.shape());
    const std::span<float> out = tensor.as<float>();
    if (encoded.codec == TensorCodec::kInt8) {
        const std::span<const std::int8_t> in = encoded.tensor.as<std::int8_t>();
        for (std::size_t i = 0; i < in.size(); ++i)
            out[i] = static_cast<float>(in[i]) * encoded.scale;
        return tensor;
    }
    const std::span<const std::uint16_t> in = encoded.tensor.as<std::uint16_t>();
    if (encoded.codec == TensorCodec::kFp16) {
        for (std::size_t i = 0; i < in.size(); ++i) out[i] = from_half(in[i]);
    } else {
        for (std::size_t i = 0; i < in.size(); ++i) out[i] = from_bfloat(in[i]);
    }
    return tensor;
}

EncodedTensor ErrorFeedback::encode(const HostTensor& gradient, TensorCodec codec) {
    if (codec == TensorCodec::kNone || gradient.dtype() != DType::kF32) return {gradient};
    HostTensor sum = gradient.clone();
    if (!current_.defined() && committed_.defined()) current_ = committed_.clone();
    const std::size_t known = common_floats(sum, current_);
    const std::span<float> total = sum.as<float>();
    const std::span<const float> residual = std::as_const(current_).as<float>();
    for (std::size_t i = 0; i < known; ++i) total[i] += residual[i];
    EncodedTensor encoded = encode_tensor(sum, codec);
    const HostTensor sent = decode_tensor(encoded);
    const std::span<const float> received = sent.as<float>();
    for (std::size_t i = 0; i < total.size(); ++i) total[i] -= received[i];
    if (known == 0 || sum.bytes() >= current_.bytes()) {
        current_ = std::move(sum);
    } else {
        std::memcpy(current_.data(), sum.data(), sum.bytes());
    }
    return encoded;
}

void ErrorFeedback::commit() {
    if (current_.defined()) committed_ = std::exchange(current_, HostTensor());
}

void ErrorFeedback::discard() { current_ = HostTensor(); }

void ErrorFeedback::load(HostTensor residual) {
    committed_ = std::move(residual);
    current_ = HostTensor();
}

}  // namespace ecopipe
