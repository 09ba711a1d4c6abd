#pragma once
// Compression of float32 tensors on the wire. Every codec is defined bit by bit, so that the same
// tensor gives the same bytes on every machine; none is exact, so a run that uses one no longer
// equals --single. A value that is not finite stays so. Pure; torch-free.

#include <cstdint>
#include <optional>
#include <string_view>

#include "core/host_tensor.h"

namespace ecopipe {

// Values are part of the wire: never renumber.
enum class TensorCodec : std::uint8_t {
    kNone = 0,
    kFp16 = 1,  // IEEE binary16, ties to even; above 65504 becomes infinite
    kBf16 = 2,  // the upper half of binary32, ties to even
    kInt8 = 3,  // round(x / scale) with scale = max |x| / 127, one scale a tensor
};

// fp32 | fp16 | bf16 | int8, as in a plan.
[[nodiscard]] std::optional<TensorCodec> codec_named(std::string_view name);
[[nodiscard]] std::string_view codec_name(TensorCodec codec);
// The element type of an encoded tensor; kF32 for kNone.
[[nodiscard]] DType encoded_dtype(TensorCodec codec);

// What it leaves of a float32 tensor's bytes.
[[nodiscard]] double codec_ratio(TensorCodec codec);

struct EncodedTensor {
    HostTensor tensor;  // of encoded_dtype, in the original's shape
    TensorCodec codec = TensorCodec::kNone;
    float scale = 1;  // of kInt8
};

// Tensors that are not float32 pass unchanged, as kNone.
[[nodiscard]] EncodedTensor encode_tensor(const HostTensor& tensor, TensorCodec codec);
[[nodiscard]] HostTensor decode_tensor(const EncodedTensor& encoded);

// Error feedback (Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019): what rounding
// lost of one gradient is added to the next one that crosses the same cut, so that errors do not
// build up. The residual is step state: it changes by commit alone. One thread.
class ErrorFeedback {
  public:
    // Adds the residual to `gradient`, encodes the sum and keeps what the encoding lost. A smaller
    // micro-batch uses and updates the residual of its first samples.
    [[nodiscard]] EncodedTensor encode(const HostTensor& gradient, TensorCodec codec);
    void commit();
    void discard();  // back to the last commit

    [[nodiscard]] const HostTensor& residual() const { return committed_; }  // undefined at first
    void load(HostTensor residual);

  private:
    HostTensor committed_;
    HostTensor current_;  // undefined: as committed
};

}  // namespace ecopipe
