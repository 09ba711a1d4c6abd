#pragma once
// How much of what clients send may wait for the server's main thread. A client that keeps to its
// credits never meets it. `take` on one thread; what it gives may be released on any.

#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <string>

namespace ecopipe {

class InboxBound {
  public:
    static constexpr std::size_t kMessageBytes = 256;  // what a message takes besides its bytes

    // `credit`: bytes that all clients together may have under way. One sender may have as much
    // waiting, all together twice as much.
    explicit InboxBound(std::size_t credit) : sender_max_(credit), all_max_(2 * credit) {}

    // Counts a message until what is returned is released; null when it is beyond the bound.
    [[nodiscard]] std::shared_ptr<void> take(const std::string& sender, std::size_t bytes);
    // Senders that are remembered: those of whom something waits, and a few.
    [[nodiscard]] std::size_t senders() const { return senders_.size(); }

  private:
    using Count = std::shared_ptr<std::atomic<std::size_t>>;
    std::size_t sender_max_;
    std::size_t all_max_;
    Count all_ = std::make_shared<std::atomic<std::size_t>>(0);
    std::map<std::string, Count> senders_;
    std::size_t tidy_at_ = 64;
};

}  // namespace ecopipe
