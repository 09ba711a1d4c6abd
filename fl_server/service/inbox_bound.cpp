#include "fl_server/service/inbox_bound.h"

#include <algorithm>

namespace ecopipe {

std::shared_ptr<void> InboxBound::take(const std::string& sender, std::size_t bytes) {
    if (senders_.size() >= tidy_at_) {
        std::erase_if(senders_, [](const auto& entry) { return *entry.second == 0; });
        tidy_at_ = std::max<std::size_t>(64, 2 * senders_.size());
    }
    Count& own = senders_[sender];
    if (!own) own = std::make_shared<std::atomic<std::size_t>>(0);
    const std::size_t taken = bytes + kMessageBytes;
    // Only releases come between this and the next line: neither sum grows.
    if (*own + taken > sender_max_ || *all_ + taken > all_max_) return nullptr;
    *own += taken;
    *all_ += taken;
    // Not null, so that it is told from a refusal.
    return {all_.get(), [all = all_, own, taken](void*) {
                *all -= taken;
                *own -= taken;
            }};
}

}  // namespace ecopipe
