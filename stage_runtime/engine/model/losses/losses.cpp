#include "stage_runtime/engine/model/losses/losses.h"

namespace ecopipe {

at::Tensor targets_like(const at::Tensor& output, const at::Tensor& labels, const char* loss) {
    const bool column = output.dim() == labels.dim() + 1 && output.size(-1) == 1 &&
                        output.numel() == labels.numel();
    TORCH_CHECK(column || output.sizes() == labels.sizes(), loss,
                " expects outputs and targets of one shape, found ", output.sizes(), " and ",
                labels.sizes());
    return labels.reshape(output.sizes()).to(output.scalar_type());
}

}  // namespace ecopipe
