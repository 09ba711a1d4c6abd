#pragma once
// The losses by name, for whoever knows no torch.

#include <array>
#include <string>
#include <string_view>

namespace ecopipe {

inline constexpr std::array<std::string_view, 3> kLossNames{"cross_entropy", "mse", "bce"};

[[nodiscard]] constexpr bool is_loss(std::string_view name) {
    for (const std::string_view known : kLossNames)
        if (name == known) return true;
    return false;
}

// What is reported beside the loss: mean absolute error, or accuracy.
[[nodiscard]] constexpr bool is_regression(std::string_view loss) { return loss == "mse"; }

}  // namespace ecopipe
