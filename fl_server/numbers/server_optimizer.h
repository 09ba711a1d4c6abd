#pragma once
// One step of a server optimiser (see recipe.h) for one block, element by element.
//
//   momentum:  m = beta1 m + d               next = G + lr m
//   adam:      m = beta1 m + (1 - beta1) d   v = beta2 v + (1 - beta2) d^2
//   yogi:      m as adam                     v = v - (1 - beta2) d^2 sign(v - d^2)
//              next = G + lr m / (sqrt(v) + tau)
//
// d is the pseudo-gradient. m starts at 0, v at tau^2 (Algorithm 2 asks for v >= tau^2); there is
// no bias correction, as in the paper. Moments are F32, computed in double.

#include <cstddef>

#include "fl_server/numbers/recipe.h"

namespace ecopipe {

// `next` holds what the recipe's terms sum to and receives the optimised value; `global` is G.
void optimizer_step(const ServerOptimizer& optimizer, const double* global, std::size_t n, float* m,
                    float* v, double* next);

}  // namespace ecopipe
