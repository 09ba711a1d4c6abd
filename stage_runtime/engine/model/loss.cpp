#include "stage_runtime/engine/model/loss.h"

namespace ecopipe {

LossTotals totals_of(const LossValue& value) {
    return {value.sum.detach().item<double>(),
            value.weight.value_or(static_cast<double>(value.count)),
            static_cast<std::uint64_t>(value.count), static_cast<std::uint64_t>(value.correct),
            value.absolute_error};
}

}  // namespace ecopipe
