#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "stage_runtime/engine/run/gradient_norm.h"
#include "stage_runtime/engine/run/optimizers/optimizers.h"

namespace ecopipe {
namespace {

constexpr double kDecayExponent = -0.8;      // of the second moment's weight with the steps
constexpr double kSmallestParameter = 1e-3;  // a parameter counts as at least so large
constexpr double kLargestUpdate = 1;         // in the root mean square, before the step's size
constexpr float kFloatEpsilon = std::numeric_limits<float>::epsilon();

double root_mean_square(const at::Tensor& tensor) {
    return std::sqrt(squared_norm(tensor) / static_cast<double>(tensor.numel()));
}

// Keeps what the parameter's shape allows: a mean for each row and one for each column, or, of one
// row, all squares.
class Adafactor : public Optimizer {
  public:
    explicit Adafactor(const OptimizerSpec& spec) : weight_decay_(spec.weight_decay) {}

    OptimizerState fresh_state(const at::Tensor& parameter) const override {
        const FactoredShape view(parameter.sizes().vec());
        OptimizerState state{{"step", at::zeros({}, at::kLong)}};
        if (view.factored()) {
            state.emplace_back("row_var", at::zeros({view.rows}));
            state.emplace_back("col_var", at::zeros({view.columns}));
        } else {
            state.emplace_back("variance", at::zeros(parameter.sizes()));
        }
        return state;
    }

    void update(at::Tensor& parameter, const at::Tensor& gradient, OptimizerState& state,
                double learning_rate) const override {
        if (parameter.numel() == 0) return;
        const FactoredShape view(parameter.sizes().vec());
        const auto step = static_cast<double>(state[0].second.add_(1).item<std::int64_t>());
        const double weight = std::pow(step, kDecayExponent);  // of this step's squares
        const double size = std::max(kSmallestParameter, root_mean_square(parameter)) *
                            std::min(learning_rate, 1 / std::sqrt(step));
        const at::Tensor changes = gradient.contiguous();
        const at::Tensor direction = at::empty_like(changes);
        if (view.factored())
            factored(view, changes, state[1].second, state[2].second, weight, direction);
        else
            whole(changes, state[1].second, weight, direction);
        const double excess = std::max(1.0, root_mean_square(direction) / kLargestUpdate);
        if (weight_decay_ != 0) parameter.mul_(1 - learning_rate * weight_decay_);
        parameter.add_(direction.view_as(parameter), -size / excess);
    }

  private:
    static float moved(float from, double to, double weight) {
        return static_cast<float>(static_cast<double>(from) +
                                  weight * (to - static_cast<double>(from)));
    }

    static float relative(float gradient, float variance) {
        constexpr float kSmallestVariance = kFloatEpsilon * kFloatEpsilon;
        return gradient / std::sqrt(std::max(variance, kSmallestVariance));
    }

    static void factored(const FactoredShape& view, const at::Tensor& gradient,
                         const at::Tensor& row_variance, const at::Tensor& column_variance,
                         double weight, const at::Tensor& out) {
        const auto rows = static_cast<std::size_t>(view.rows);
        const auto columns = static_cast<std::size_t>(view.columns);
        const float* g = gradient.data_ptr<float>();
        float* by_row = row_variance.data_ptr<float>();
        float* by_column = column_variance.data_ptr<float>();
        std::vector<double> column_sums(columns);
        double mean = 0;
        for (std::size_t row = 0; row < rows; ++row) {
            double sum = 0;
            for (std::size_t column = 0; column < columns; ++column) {
                const auto value = static_cast<double>(g[row * columns + column]);
                sum += value * value;
                column_sums[column] += value * value;
            }
            by_row[row] = moved(by_row[row], sum / static_cast<double>(columns), weight);
            mean += static_cast<double>(by_row[row]) / static_cast<double>(rows);
        }
        for (std::size_t column = 0; column < columns; ++column)
            by_column[column] =
                moved(by_column[column], column_sums[column] / static_cast<double>(rows), weight);
        mean = std::max(mean, static_cast<double>(kFloatEpsilon));
        float* direction = out.data_ptr<float>();
        for (std::size_t row = 0; row < rows; ++row) {
            const auto scale = static_cast<float>(static_cast<double>(by_row[row]) / mean);
            for (std::size_t column = 0; column < columns; ++column)
                direction[row * columns + column] =
                    relative(g[row * columns + column], scale * by_column[column]);
        }
    }

    static void whole(const at::Tensor& gradient, const at::Tensor& kept, double weight,
                      const at::Tensor& out) {
        const float* g = gradient.data_ptr<float>();
        float* variance = kept.data_ptr<float>();
        float* direction = out.data_ptr<float>();
        for (std::size_t i = 0; i < static_cast<std::size_t>(gradient.numel()); ++i) {
            const auto value = static_cast<double>(g[i]);
            variance[i] = moved(variance[i], value * value, weight);
            direction[i] = relative(g[i], variance[i]);
        }
    }

    double weight_decay_;
};

}  // namespace

std::unique_ptr<Optimizer> adafactor(const OptimizerSpec& spec) {
    return std::make_unique<Adafactor>(spec);
}

}  // namespace ecopipe
