#include "fl_server/numbers/model_layout.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/log.h"

namespace ecopipe {

Result<ModelLayout> ModelLayout::create(std::vector<LayoutTensor> tensors) {
    ModelLayout layout;
    layout.tensors_ = std::move(tensors);
    for (std::size_t t = 0; t < layout.tensors_.size(); ++t) {
        LayoutTensor& tensor = layout.tensors_[t];
        const auto refuse = [&](const char* problem) {
            return fail(ExitCode::kUsage,
                        fmt::format("tensor {}: {}", printable(tensor.name), problem));
        };
        if (tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16)
            return refuse("a federation cannot average half precision");
        const auto bytes = checked_bytes(tensor.dtype, tensor.shape);
        if (!bytes) return refuse("its shape is not valid");
        if (is_floating(tensor.dtype) == (tensor.kind == StateKind::kInteger))
            return refuse("its kind does not fit its type");
        if (*bytes > kModelBytesMax - layout.bytes_)
            return refuse("the model has more than 64 GiB with it");
        tensor.offset = layout.bytes_;
        tensor.bytes = *bytes;
        const std::size_t size = dtype_bytes(tensor.dtype);
        const bool narrow = tensor.dtype == DType::kF32 && tensor.kind == StateKind::kParameter;
        const bool integer = tensor.kind == StateKind::kInteger;
        std::size_t& lane = integer ? layout.integers_ : narrow ? layout.narrow_ : layout.wide_;
        for (std::size_t at = 0; at < *bytes;) {
            Block block;
            block.tensor = static_cast<std::uint32_t>(t);
            block.offset = tensor.offset + at;
            block.elements = std::min(kBlockElements, (*bytes - at) / size);
            block.bytes = block.elements * size;
            block.narrow = narrow;
            block.lane = lane;
            lane += integer ? block.bytes : block.elements;
            layout.blocks_.push_back(block);
            at += block.bytes;
        }
        layout.bytes_ += *bytes;
    }
    if (layout.bytes_ == 0) return fail(ExitCode::kUsage, "the model has no tensors");
    return layout;
}

}  // namespace ecopipe
