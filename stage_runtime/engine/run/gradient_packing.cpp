#include "stage_runtime/engine/run/gradient_packing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/tensor_memory.h"
#include "stage_runtime/engine/model/tensor_bridge.h"

namespace ecopipe {
namespace {

bool all_f32(const Tensors& parameters) {
    return std::all_of(parameters.begin(), parameters.end(), [](const at::Tensor& parameter) {
        return parameter.scalar_type() == at::kFloat;
    });
}

constexpr std::string_view kDigits = "0123456789abcdef";

std::string bits_of(const Tensors& gradients) {
    std::string digits;
    for (std::size_t i = 0; i < gradients.size(); i += 4) {
        std::size_t digit = 0;
        for (std::size_t k = i; k < std::min(i + 4, gradients.size()); ++k)
            if (gradients[k].defined()) digit |= std::size_t{1} << (k - i);
        digits += kDigits[digit];
    }
    return digits;
}
bool bit_in(const std::string& digits, std::size_t i) {
    const std::size_t digit = kDigits.find(digits[i / 4]);
    return digit != std::string_view::npos && (digit >> (i % 4) & 1U) != 0;
}

}  // namespace

LayerGradient pack_gradient(const Tensors& gradients, const Tensors& parameters) {
    const MemoryScope memory(MemoryUse::kLeaving);
    LayerGradient out;
    std::size_t bytes = 0;
    bool missing = false;
    for (const at::Tensor& gradient : gradients) {
        if (gradient.defined()) bytes += gradient.nbytes();
        missing = missing || !gradient.defined();
    }
    if (missing) out.missing = bits_of(gradients);
    const DType dtype = all_f32(parameters) ? DType::kF32 : DType::kU8;
    // A tensor without elements would not travel.
    const std::size_t elements = std::max<std::size_t>(1, bytes / dtype_bytes(dtype));
    out.values = HostTensor::allocate(dtype, {static_cast<std::int64_t>(elements)});
    if (bytes == 0) std::memset(out.values.data(), 0, out.values.bytes());
    std::byte* at = out.values.data();
    for (const at::Tensor& gradient : gradients) {
        if (!gradient.defined()) continue;
        const at::Tensor whole = gradient.contiguous();
        std::memcpy(at, whole.data_ptr(), whole.nbytes());
        at += whole.nbytes();
    }
    return out;
}

Result<Tensors> unpack_gradient(const LayerGradient& gradient, const Tensors& parameters) {
    const auto refused = [&](const std::string& what) {
        return fail(ExitCode::kRunFailed, "another device's gradient of a layer: " + what);
    };
    if (!gradient.missing.empty() && gradient.missing.size() != (parameters.size() + 3) / 4)
        return refused(fmt::format("expected bits of {} parameters, found {} digits",
                                   parameters.size(), gradient.missing.size()));
    const DType dtype = all_f32(parameters) ? DType::kF32 : DType::kU8;
    const at::Tensor values = to_torch(gradient.values);
    Tensors out;
    std::size_t at = 0;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        out.emplace_back();
        if (!gradient.missing.empty() && !bit_in(gradient.missing, i)) continue;
        const std::size_t bytes = parameters[i].nbytes();
        if (gradient.values.dtype() != dtype || at + bytes > gradient.values.bytes())
            return refused(fmt::format("expected at least {} bytes, found {}", at + bytes,
                                       gradient.values.bytes()));
        if (dtype == DType::kF32) {
            out.back() =
                values
                    .narrow(0, static_cast<std::int64_t>(at / sizeof(float)), parameters[i].numel())
                    .view(parameters[i].sizes());
        } else {
            out.back() =
                at::empty(parameters[i].sizes(), parameters[i].options().requires_grad(false));
            std::memcpy(out.back().data_ptr(), gradient.values.data() + at, bytes);
        }
        at += bytes;
    }
    if (at != gradient.values.bytes() && at > 0)
        return refused(fmt::format("expected {} bytes, found {}", at, gradient.values.bytes()));
    return out;
}

}  // namespace ecopipe
