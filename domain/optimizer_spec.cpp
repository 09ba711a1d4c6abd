#include "domain/optimizer_spec.h"

#include <fmt/format.h>

#include <array>

#include "core/log.h"

namespace ecopipe {
namespace {

struct Kind {
    std::string_view name;
    int moments;  // of a parameter's size
};
constexpr std::array<Kind, 4> kKinds{{{"sgd", 1}, {"adam", 2}, {"adamw", 2}, {"adafactor", 0}}};

int moments_of(const OptimizerSpec& spec) {
    if (spec.name == "sgd" && spec.momentum == 0) return 0;
    for (const Kind& kind : kKinds)
        if (kind.name == spec.name) return kind.moments;
    return 0;
}

}  // namespace

FactoredShape::FactoredShape(const Shape& parameter) {
    for (const std::int64_t size : parameter) columns *= size;
    // A convolution's filters are rows whatever the kernel's size: its last two dimensions, which
    // the paper would factor, are small.
    if (parameter.size() < 2 || parameter.front() < 1) return;
    rows = parameter.front();
    columns /= rows;
}

bool OptimizerSpec::known() const {
    for (const Kind& kind : kKinds)
        if (kind.name == name)
            return moments == DType::kF32 || (moments == DType::kBF16 && kind.moments > 0);
    return false;
}

std::uint64_t OptimizerSpec::state_bytes(const Shape& parameter) const {
    const FactoredShape view(parameter);
    const auto size = static_cast<std::uint64_t>(view.rows * view.columns);
    std::uint64_t bytes =
        static_cast<std::uint64_t>(moments_of(*this)) * size * dtype_bytes(moments);
    if (name == "adafactor")
        bytes += sizeof(float) *
                 (view.factored() ? static_cast<std::uint64_t>(view.rows + view.columns) : size);
    return bytes + (proximal_mu != 0 ? size * sizeof(float) : 0);
}

int OptimizerSpec::slots() const { return moments_of(*this) + (proximal_mu != 0 ? 1 : 0); }

std::vector<std::uint64_t> optimizer_bytes(const ModelInfo& info, const OptimizerSpec& optimizer) {
    std::vector<std::uint64_t> bytes(info.layers.size(), 0);
    for (const TensorInfo& tensor : info.tensors)
        if (tensor.trainable && tensor.same_as.empty())
            bytes[static_cast<std::size_t>(tensor.layer)] += optimizer.state_bytes(tensor.shape);
    return bytes;
}

Result<OptimizerSpec> parse_optimizer(const std::string& name, const std::string& moments) {
    OptimizerSpec spec;
    spec.name = name;
    if (!spec.known())
        return fail(ExitCode::kUsage, fmt::format("--optimizer: expected {}, found '{}'",
                                                  kOptimizerNames, printable(name)));
    if (moments != "float32" && moments != "bfloat16")
        return fail(
            ExitCode::kUsage,
            fmt::format("--moments: expected float32 or bfloat16, found '{}'", printable(moments)));
    if (moments == "bfloat16") spec.moments = DType::kBF16;
    if (!spec.known())
        return fail(
            ExitCode::kUsage,
            fmt::format("--moments bfloat16 goes with sgd, adam and adamw, found {}", name));
    return spec;
}

}  // namespace ecopipe
