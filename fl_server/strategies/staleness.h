#pragma once
// How much an update that trained from an old version still counts: s(tau), tau being the versions
// committed since. Xie, Koyejo and Gupta, "Asynchronous Federated Optimization" (2019), section 5:
//   const 1 | poly (tau + 1)^-a | hinge 1 if tau <= b, else 1 / (a (tau - b) + 1)

#include <cstdint>
#include <string>

#include "fl_server/strategies/parameters.h"

namespace ecopipe {

struct StalenessWeight {
    enum class Kind : std::uint8_t { kConst, kPoly, kHinge };
    Kind kind = Kind::kConst;
    double a = 0.5;
    double b = 4;

    [[nodiscard]] double at(std::uint64_t staleness) const;

    // The parameters `staleness`, `staleness_a` and `staleness_b`.
    [[nodiscard]] static ParameterRules rules(const std::string& kind, double a, double b);
    [[nodiscard]] static StalenessWeight from(const Parameters& parameters);
};

}  // namespace ecopipe
