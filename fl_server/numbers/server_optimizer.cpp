#include "fl_server/numbers/server_optimizer.h"

#include <cmath>

namespace ecopipe {

void optimizer_step(const ServerOptimizer& optimizer, const double* global, std::size_t n, float* m,
                    float* v, double* next) {
    const double b1 = optimizer.beta1;
    const double b2 = optimizer.beta2;
    for (std::size_t i = 0; i < n; ++i) {
        const double d = next[i] - global[i];
        if (optimizer.kind == ServerOptimizer::Kind::kMomentum) {
            const double momentum = b1 * static_cast<double>(m[i]) + d;
            m[i] = static_cast<float>(momentum);
            next[i] = global[i] + optimizer.lr * momentum;
            continue;
        }
        const double first = b1 * static_cast<double>(m[i]) + (1 - b1) * d;
        const double before = static_cast<double>(v[i]);
        const double square = d * d;
        double second = b2 * before + (1 - b2) * square;
        if (optimizer.kind == ServerOptimizer::Kind::kYogi) {
            const double sign = before > square ? 1 : before < square ? -1 : 0;
            second = before - (1 - b2) * square * sign;
        }
        m[i] = static_cast<float>(first);
        v[i] = static_cast<float>(second);
        next[i] = global[i] + optimizer.lr * first / (std::sqrt(second) + optimizer.tau);
    }
}

}  // namespace ecopipe
