#include "planner/search/layout_moves.h"

#include <algorithm>

namespace ecopipe {
namespace {

std::size_t draw(std::size_t bound, Rng& rng) { return static_cast<std::size_t>(rng.below(bound)); }

int draw_unused(const Layout& layout, int devices, Rng& rng) {
    const int unused = devices - static_cast<int>(layout.devices.size());
    if (unused <= 0) return -1;
    int nth = static_cast<int>(draw(static_cast<std::size_t>(unused), rng));
    for (int d = 0; d < devices; ++d)
        if (std::find(layout.devices.begin(), layout.devices.end(), d) == layout.devices.end() &&
            nth-- == 0)
            return d;
    return -1;
}

std::vector<int> sizes_of(const Layout& layout) {
    std::vector<int> sizes = layout.ends;
    for (std::size_t s = sizes.size(); s-- > 1;) sizes[s] -= layout.ends[s - 1];
    return sizes;
}

void set_sizes(Layout& layout, const std::vector<int>& sizes) {
    int end = 0;
    layout.ends.clear();
    for (const int size : sizes) layout.ends.push_back(end += size);
}

bool shift_cut(Layout& layout, Rng& rng) {
    if (layout.ends.size() < 2) return false;
    const std::size_t cut = draw(layout.ends.size() - 1, rng);
    int by = 1;
    while (by < 8 && rng.below(2) == 0) ++by;
    const int end = layout.ends[cut] + (rng.below(2) == 0 ? by : -by);
    if (end <= (cut == 0 ? 0 : layout.ends[cut - 1]) || end >= layout.ends[cut + 1]) return false;
    layout.ends[cut] = end;
    return true;
}

// One atom goes from one stage to any other: all cuts between them shift.
bool carry_atom(Layout& layout, Rng& rng) {
    if (layout.ends.size() < 3) return false;
    std::vector<int> sizes = sizes_of(layout);
    const std::size_t from = draw(sizes.size(), rng);
    const std::size_t to = draw(sizes.size(), rng);
    if (from == to || sizes[from] == 1) return false;
    --sizes[from];
    ++sizes[to];
    set_sizes(layout, sizes);
    return true;
}

// Two stages trade devices, and half of the time their sizes too.
bool swap_stages(Layout& layout, Rng& rng) {
    if (layout.devices.size() < 2) return false;
    const std::size_t a = draw(layout.devices.size(), rng);
    const std::size_t b = draw(layout.devices.size(), rng);
    if (a == b) return false;
    std::swap(layout.devices[a], layout.devices[b]);
    if (rng.below(2) == 0) {
        std::vector<int> sizes = sizes_of(layout);
        std::swap(sizes[a], sizes[b]);
        set_sizes(layout, sizes);
    }
    return true;
}

bool replace_device(Layout& layout, int devices, Rng& rng) {
    const int device = draw_unused(layout, devices, rng);
    if (device < 0) return false;
    layout.devices[draw(layout.devices.size(), rng)] = device;
    return true;
}

// A new stage takes part of one that has atoms to spare, before or after it.
bool add_stage(Layout& layout, int devices, Rng& rng) {
    const int device = draw_unused(layout, devices, rng);
    if (device < 0) return false;
    const std::size_t s = draw(layout.devices.size(), rng);
    std::vector<int> sizes = sizes_of(layout);
    if (sizes[s] < 2) return false;
    const int taken = 1 + static_cast<int>(draw(static_cast<std::size_t>(sizes[s]) - 1, rng));
    const auto at = static_cast<std::ptrdiff_t>(s + (rng.below(2) == 0 ? 0 : 1));
    sizes[s] -= taken;
    sizes.insert(sizes.begin() + at, taken);
    layout.devices.insert(layout.devices.begin() + at, device);
    set_sizes(layout, sizes);
    return true;
}

// A stage goes; its atoms go to its neighbours.
bool drop_stage(Layout& layout, Rng& rng) {
    const std::size_t count = layout.devices.size();
    if (count < 2) return false;
    const std::size_t s = draw(count, rng);
    std::vector<int> sizes = sizes_of(layout);
    int left = s == 0 ? 0
               : s + 1 == count
                   ? sizes[s]
                   : static_cast<int>(draw(static_cast<std::size_t>(sizes[s]) + 1, rng));
    if (s > 0) sizes[s - 1] += left;
    if (s + 1 < count) sizes[s + 1] += sizes[s] - left;
    sizes.erase(sizes.begin() + static_cast<std::ptrdiff_t>(s));
    layout.devices.erase(layout.devices.begin() + static_cast<std::ptrdiff_t>(s));
    set_sizes(layout, sizes);
    return true;
}

// A stage, with its size, goes elsewhere in the order.
bool move_stage(Layout& layout, Rng& rng) {
    const std::size_t count = layout.devices.size();
    if (count < 3) return false;
    const std::size_t from = draw(count, rng);
    const std::size_t to = draw(count, rng);
    if (from == to) return false;
    std::vector<int> sizes = sizes_of(layout);
    const auto rotate = [&](std::vector<int>& values) {
        const int value = values[from];
        values.erase(values.begin() + static_cast<std::ptrdiff_t>(from));
        values.insert(values.begin() + static_cast<std::ptrdiff_t>(to), value);
    };
    rotate(sizes);
    rotate(layout.devices);
    set_sizes(layout, sizes);
    return true;
}

// A run of stages in reverse order, sizes included.
bool reverse_run(Layout& layout, Rng& rng) {
    const std::size_t count = layout.devices.size();
    if (count < 3) return false;
    const std::size_t one = draw(count, rng);
    const std::size_t other = draw(count, rng);
    if (one == other) return false;
    const auto [low, high] = std::minmax(one, other);
    std::vector<int> sizes = sizes_of(layout);
    const auto a = static_cast<std::ptrdiff_t>(low);
    const auto b = static_cast<std::ptrdiff_t>(high) + 1;
    std::reverse(sizes.begin() + a, sizes.begin() + b);
    std::reverse(layout.devices.begin() + a, layout.devices.begin() + b);
    set_sizes(layout, sizes);
    return true;
}

}  // namespace

void move_order(std::vector<int>& order, std::size_t used, Rng& rng) {
    const std::size_t a = draw(std::min(used, order.size()), rng);
    const std::size_t b = draw(order.size(), rng);
    const auto [low, high] = std::minmax(a, b);
    const auto first = order.begin() + static_cast<std::ptrdiff_t>(low);
    const auto last = order.begin() + static_cast<std::ptrdiff_t>(high);
    switch (rng.below(5)) {
        case 0:
        case 1:
            std::iter_swap(first, last);
            break;
        case 2:
            std::rotate(first, first + 1, last + 1);
            break;
        case 3:
            std::rotate(first, last, last + 1);
            break;
        default:
            std::reverse(first, last + 1);
    }
}

bool move_randomly(Layout& layout, int devices, int atoms, Rng& rng) {
    const bool may_grow = static_cast<int>(layout.devices.size()) < std::min(devices, atoms);
    switch (rng.below(16)) {
        case 0:
        case 1:
            return swap_stages(layout, rng);
        case 2:
            return replace_device(layout, devices, rng);
        case 3:
            return may_grow && add_stage(layout, devices, rng);
        case 4:
            return drop_stage(layout, rng);
        case 5:
            return move_stage(layout, rng);
        case 6:
            return reverse_run(layout, rng);
        case 7:
        case 8:
        case 9:
            return carry_atom(layout, rng);
        default:
            return shift_cut(layout, rng);
    }
}

}  // namespace ecopipe
