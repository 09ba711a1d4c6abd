#pragma once
// The standard's mutex, lock and condition variable, with what clang needs to check their use
// (core/thread_annotations.h): libstdc++'s own say nothing of what they lock. They compile to the
// same instructions.

#include <condition_variable>
#include <mutex>

#include "core/clock.h"
#include "core/thread_annotations.h"

namespace ecopipe {

class ECOPIPE_CAPABILITY("mutex") Mutex {
  public:
    void lock() ECOPIPE_ACQUIRE() { mutex_.lock(); }
    void unlock() ECOPIPE_RELEASE() { mutex_.unlock(); }

  private:
    friend class ConditionVariable;
    std::mutex mutex_;
};

// Holds a mutex for as long as it lives, but for what is between an unlock() and the next lock().
class ECOPIPE_SCOPED_CAPABILITY MutexLock {
  public:
    explicit MutexLock(Mutex& mutex) ECOPIPE_ACQUIRE(mutex) : lock_(mutex) {}
    ~MutexLock() ECOPIPE_RELEASE() {}
    MutexLock(const MutexLock&) = delete;
    MutexLock& operator=(const MutexLock&) = delete;

    void unlock() ECOPIPE_RELEASE() { lock_.unlock(); }
    void lock() ECOPIPE_ACQUIRE() { lock_.lock(); }

  private:
    std::unique_lock<Mutex> lock_;
};

// What is waited for is a loop around wait_until, not a predicate handed to it: clang looks at a
// lambda by itself and does not know which locks are held where it runs. Every wait has a deadline.
class ConditionVariable {
  public:
    void notify_one() noexcept { condition_.notify_one(); }
    void notify_all() noexcept { condition_.notify_all(); }

    // Gives the mutex away while it waits. False at the deadline; true when notified, or for no
    // reason.
    bool wait_until(Mutex& mutex, Instant deadline) ECOPIPE_REQUIRES(mutex) {
        std::unique_lock<std::mutex> held(mutex.mutex_, std::adopt_lock);
        const std::cv_status status = condition_.wait_until(held, deadline);
        held.release();  // it is the caller's
        return status == std::cv_status::no_timeout;
    }

  private:
    std::condition_variable condition_;
};

}  // namespace ecopipe
