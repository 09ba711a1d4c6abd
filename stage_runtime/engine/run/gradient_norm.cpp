#include "stage_runtime/engine/run/gradient_norm.h"

#include <array>

namespace ecopipe {

double squared_norm(const at::Tensor& tensor) {
    if (tensor.scalar_type() != at::kFloat)
        return tensor.to(at::kDouble).square().sum().item<double>();
    constexpr std::size_t kLanes = 8;
    std::array<double, kLanes> lanes{};
    const at::Tensor flat = tensor.contiguous();
    const float* data = flat.data_ptr<float>();
    const auto n = static_cast<std::size_t>(flat.numel());
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
        for (std::size_t lane = 0; lane < kLanes; ++lane)
            lanes[lane] +=
                static_cast<double>(data[i + lane]) * static_cast<double>(data[i + lane]);
    for (; i < n; ++i) lanes[0] += static_cast<double>(data[i]) * static_cast<double>(data[i]);
    double sum = 0;
    for (const double lane : lanes) sum += lane;
    return sum;
}

}  // namespace ecopipe
