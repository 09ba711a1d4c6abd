#pragma once
// A small model with every kind of tensor, and updates of it, for the tests of the numbers.

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/random.h"
#include "fl_server/numbers/aggregator.h"

namespace ecopipe::test {

inline std::shared_ptr<const std::string> flat_floats(const std::vector<float>& values) {
    return std::make_shared<const std::string>(reinterpret_cast<const char*>(values.data()),
                                               values.size() * sizeof(float));
}
inline std::vector<float> floats_of(const std::string& bytes) {
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
}

// One F32 parameter of `n` elements.
inline ModelLayout vector_layout(std::int64_t n) {
    return ModelLayout::create({{"w", DType::kF32, {n}, StateKind::kParameter, 0}}).value();
}

inline CheckedUpdate checked(const ModelLayout& layout, std::shared_ptr<const std::string> bytes,
                             std::shared_ptr<const std::string> base, std::uint64_t version = 0) {
    CheckedUpdate update{memory_source(std::move(bytes)), version, {}};
    update.measure = measure_update(layout, *update.bytes, memory_source(std::move(base))).value();
    return update;
}

inline Recipe mean_recipe(SlotId slot = 0, double coefficient = 1) {
    Recipe recipe;
    recipe.close = {{slot, {}}};
    recipe.next = {{Term::Source::kGlobal, 0, 0, "", 1},
                   {Term::Source::kDelta, 0, slot, "", coefficient}};
    return recipe;
}

}  // namespace ecopipe::test
