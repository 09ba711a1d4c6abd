#include "domain/plan.h"

#include <algorithm>

#include "core/check.h"

namespace ecopipe {

std::uint64_t predicted_peak_bytes(const Plan& plan, const std::string& device) {
    std::uint64_t bytes = 0;
    for (const StagePlan& stage : plan.stages)
        if (stage.device == device) bytes += stage.peak_bytes.value_or(0);
    return bytes;
}

std::vector<int> micro_batch_sizes(int samples, int micro_batches) {
    ECOPIPE_CHECK(samples >= 0 && micro_batches >= 1);
    const int parts = std::min(samples, micro_batches);
    std::vector<int> out;
    for (int m = 0; m < parts; ++m) out.push_back(samples / parts + (m < samples % parts ? 1 : 0));
    return out;
}

}  // namespace ecopipe
