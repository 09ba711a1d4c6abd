// A chunk as a data channel takes it: its description, memory for its tensor, decoding by codec.
#include <algorithm>
#include <cstring>

#include "fuzz/target.h"
#include "transport/wire/codec.h"
#include "transport/wire/messages.h"

namespace {
constexpr std::size_t kTensorBytesTried = 1U << 20;
}

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    if (size < 2) return 0;
    const std::size_t body = std::min<std::size_t>(data[0], size - 1);
    const auto chunk = decode<TensorChunk>(fuzz::bytes(data + 1, body));
    if (!chunk) return 0;
    const auto total = checked_bytes(chunk->dtype, chunk->shape);
    ECOPIPE_CHECK(total.has_value());
    if (*total > kTensorBytesTried) return 0;
    HostTensor tensor = HostTensor::allocate(chunk->dtype, chunk->shape);
    ECOPIPE_CHECK(tensor.bytes() == *total);
    if (*total > 0) {
        std::memset(tensor.data(), 0, *total);
        std::memcpy(tensor.data(), data + 1 + body, std::min(*total, size - 1 - body));
    }
    const HostTensor decoded = decode_tensor({tensor, chunk->codec, chunk->scale});
    ECOPIPE_CHECK(decoded.shape() == chunk->shape);
    if (decoded.dtype() == DType::kF32)
        for (const TensorCodec codec : {TensorCodec::kFp16, TensorCodec::kBf16, TensorCodec::kInt8})
            ECOPIPE_CHECK(decode_tensor(encode_tensor(decoded, codec)).shape() == chunk->shape);
    return 0;
}
