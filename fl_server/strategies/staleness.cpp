#include "fl_server/strategies/staleness.h"

#include <cmath>

namespace ecopipe {

double StalenessWeight::at(std::uint64_t staleness) const {
    const auto tau = static_cast<double>(staleness);
    switch (kind) {
        case Kind::kConst:
            return 1;
        case Kind::kPoly:
            return std::pow(tau + 1, -a);
        case Kind::kHinge:
            return tau <= b ? 1 : 1 / (a * (tau - b) + 1);
    }
    return 1;
}

ParameterRules StalenessWeight::rules(const std::string& kind, double a, double b) {
    return {word_rule("staleness", {"const", "poly", "hinge"}, kind, "weight of a stale update"),
            number_rule("staleness_a", 0, 1000, a, "poly: the exponent; hinge: the slope"),
            number_rule("staleness_b", 0, 1e9, b, "hinge: the staleness that costs nothing")};
}

StalenessWeight StalenessWeight::from(const Parameters& parameters) {
    const std::string kind = parameters.word("staleness");
    return {kind == "const"  ? Kind::kConst
            : kind == "poly" ? Kind::kPoly
                             : Kind::kHinge,
            parameters.number("staleness_a"), parameters.number("staleness_b")};
}

}  // namespace ecopipe
