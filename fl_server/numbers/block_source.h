#pragma once
// A model's flat bytes, read by block: from memory, or from a file without loading it.

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"

namespace ecopipe {

// Reading is const and may happen on several threads at a time.
class BlockSource {
  public:
    virtual ~BlockSource() = default;
    // The `size` bytes from `offset`: a view into memory that the source owns, or into `scratch`,
    // which holds at least `size` bytes. The view is aligned to `alignment` when `scratch` is.
    // Errors: kBadFile when the file ends early or cannot be read.
    [[nodiscard]] virtual Result<std::span<const std::byte>> read(
        std::size_t offset, std::size_t size, std::size_t alignment,
        std::span<std::byte> scratch) const = 0;
};
using BlockSourcePtr = std::shared_ptr<const BlockSource>;

[[nodiscard]] BlockSourcePtr memory_source(std::shared_ptr<const std::string> bytes);
// The flat bytes that start `data_offset` bytes into the file.
[[nodiscard]] Result<BlockSourcePtr> file_source(const std::string& path, std::size_t data_offset);

// Consecutive parts, each with the number of bytes it holds: an update that came in slices.
[[nodiscard]] BlockSourcePtr joined_source(
    std::vector<std::pair<BlockSourcePtr, std::size_t>> parts);

}  // namespace ecopipe
