#include "core/memory_use.h"

#include <numeric>

namespace ecopipe {

std::string_view memory_use_name(MemoryUse use) {
    constexpr std::array<std::string_view, kMemoryUses> kNames{"weights", "gradients",  "moments",
                                                               "stash",   "workspace",  "arriving",
                                                               "leaving", "evaluation", "recovery"};
    return kNames[static_cast<std::size_t>(use)];
}

std::uint64_t MemoryByUse::total() const {
    return std::accumulate(bytes_.begin(), bytes_.end(), std::uint64_t{0});
}

}  // namespace ecopipe
