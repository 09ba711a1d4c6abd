#include "transport/net/link_shaper.h"

#include <algorithm>

namespace ecopipe {

Instant LinkShaper::reserve(Instant now, std::size_t bytes) {
    const double occupied_ms =
        link_.mbps > 0 ? static_cast<double>(bytes) * 8.0 / (link_.mbps * 1000.0) : 0.0;
    free_at_ = std::max(free_at_, now) + from_ms(occupied_ms);
    return free_at_ + from_ms(link_.latency_ms);
}

}  // namespace ecopipe
