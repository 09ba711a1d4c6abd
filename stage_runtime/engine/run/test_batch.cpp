#include "stage_runtime/engine/run/test_batch.h"

#include <algorithm>

namespace ecopipe {

Result<int> test_batch(const ModelSpec& spec, const Dataset& data) {
    ECOPIPE_ASSIGN_OR_RETURN(const Batch one, first_samples(data, 1));
    ECOPIPE_ASSIGN_OR_RETURN(const std::size_t largest, largest_tensor_bytes(spec, one));
    const std::size_t fit = kTestTensorBytes / std::max<std::size_t>(largest, 1);
    return static_cast<int>(std::clamp<std::size_t>(fit, 1, kTestBatchMax));
}

}  // namespace ecopipe
