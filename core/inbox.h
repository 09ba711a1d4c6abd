#pragma once
// A queue from the network thread to the thread that works. It never blocks the pusher: what may be
// in it is bounded by the credits of the data plane and by the control protocol, which has at most
// a few messages under way.

#include <deque>
#include <optional>

#include "core/clock.h"
#include "core/mutex.h"

namespace ecopipe {

template <class T>
class Inbox {
  public:
    void push(T item) {
        {
            const MutexLock lock(mutex_);
            items_.push_back(std::move(item));
        }
        filled_.notify_one();
    }
    // The oldest item, or nothing at the deadline.
    [[nodiscard]] std::optional<T> pop_until(Instant deadline) {
        const MutexLock lock(mutex_);
        while (items_.empty())
            if (!filled_.wait_until(mutex_, deadline) && items_.empty()) return std::nullopt;
        T item = std::move(items_.front());
        items_.pop_front();
        return item;
    }
    // The first that `wanted` says yes to, past those before it; nothing when there is none now.
    template <class Wanted>
    [[nodiscard]] std::optional<T> pop_if(const Wanted& wanted) {
        const MutexLock lock(mutex_);
        for (auto item = items_.begin(); item != items_.end(); ++item) {
            if (!wanted(*item)) continue;
            T found = std::move(*item);
            items_.erase(item);
            return found;
        }
        return std::nullopt;
    }
    // Of an earlier life of whoever reads: its pushers are gone.
    void clear() {
        const MutexLock lock(mutex_);
        items_.clear();
    }

  private:
    Mutex mutex_;
    ConditionVariable filled_;
    std::deque<T> items_ ECOPIPE_GUARDED_BY(mutex_);
};

}  // namespace ecopipe
