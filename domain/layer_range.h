#pragma once
// Consecutive layers of a model, and who gives their state to whom.

#include <cstdint>
#include <string>

namespace ecopipe {

// Layers [first, last] of a model.
struct LayerRange {
    int first = 0;
    int last = 0;
    [[nodiscard]] bool contains(int layer) const { return first <= layer && layer <= last; }
    [[nodiscard]] int size() const { return last - first + 1; }
    friend bool operator==(const LayerRange&, const LayerRange&) = default;
};

// Layers whose state goes from one process to another.
struct LayerTransfer {
    std::uint32_t first_layer = 0;
    std::uint32_t last_layer = 0;  // inclusive
    std::string peer;  // who gives, or who gets; the receiver itself: it holds them already

    template <class Archive>
    void serialize(Archive& ar) {
        ar(first_layer, last_layer, peer);
    }
    friend bool operator==(const LayerTransfer&, const LayerTransfer&) = default;
};

}  // namespace ecopipe
