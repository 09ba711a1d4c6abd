#pragma once
// Where each tensor of a model lies in its flat bytes, what kind of state it is, and the blocks in
// which everything that streams over a model (checking, folding, committing) takes it. Pure.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"

namespace ecopipe {

enum class StateKind : std::uint8_t {
    kParameter,  // floating, trained: clipped, passes a server optimiser
    kBuffer,     // floating, such as running means: averaged, never clipped or optimised
    kInteger,    // counters: the maximum is taken
};

struct LayoutTensor {
    std::string name;
    DType dtype = DType::kF32;
    Shape shape;
    StateKind kind = StateKind::kParameter;
    std::uint32_t layer = 0;
    // Set by ModelLayout:
    std::size_t offset = 0;  // in the flat bytes
    std::size_t bytes = 0;
};

// A part of one tensor. Accumulators hold F32 parameters in one array ("narrow"), every other
// floating element in another ("wide"); `lane` is the first element's index in its array, for
// integers the first byte's among all integers.
struct Block {
    std::uint32_t tensor = 0;
    std::size_t offset = 0;  // in the flat bytes
    std::size_t elements = 0;
    std::size_t bytes = 0;
    std::size_t lane = 0;
    bool narrow = false;
};

inline constexpr std::size_t kModelBytesMax = std::size_t{64} << 30;
inline constexpr std::size_t kBlockElements = 16U << 10;  // 64 KiB of F32: stays in L2
inline constexpr std::size_t kBlockBytesMax = kBlockElements * sizeof(double);

class ModelLayout {
  public:
    // Tensors follow one another in this order without gaps. Errors: kUsage for half precision,
    // which a federation cannot average, and for an invalid shape.
    [[nodiscard]] static Result<ModelLayout> create(std::vector<LayoutTensor> tensors);

    [[nodiscard]] const std::vector<LayoutTensor>& tensors() const { return tensors_; }
    [[nodiscard]] const std::vector<Block>& blocks() const { return blocks_; }  // in byte order
    [[nodiscard]] std::size_t bytes() const { return bytes_; }
    [[nodiscard]] std::size_t narrow_elements() const { return narrow_; }
    [[nodiscard]] std::size_t wide_elements() const { return wide_; }
    [[nodiscard]] std::size_t integer_bytes() const { return integers_; }
    [[nodiscard]] StateKind kind(const Block& block) const { return tensors_[block.tensor].kind; }
    [[nodiscard]] DType dtype(const Block& block) const { return tensors_[block.tensor].dtype; }

  private:
    std::vector<LayoutTensor> tensors_;
    std::vector<Block> blocks_;
    std::size_t bytes_ = 0;
    std::size_t narrow_ = 0;
    std::size_t wide_ = 0;
    std::size_t integers_ = 0;
};

}  // namespace ecopipe
