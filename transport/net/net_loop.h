#pragma once
// The one network thread of a process: it owns the ZeroMQ context and every socket; nothing else
// touches them.

#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "core/clock.h"
#include "core/mutex.h"
#include "transport/net/stranger_log.h"

namespace ecopipe {

class KeyRing;
struct PublicKey;

// Timers outlive the object that set them: it holds a lifeline, and a timer tied to it does nothing
// once it is gone.
using Lifeline = std::shared_ptr<const bool>;
[[nodiscard]] inline Lifeline make_lifeline() { return std::make_shared<const bool>(true); }

class NetLoop {
  public:
    NetLoop();
    ~NetLoop();  // stops and joins; sockets must be gone or are closed with the linger they were
                 // given
    NetLoop(const NetLoop&) = delete;
    NetLoop& operator=(const NetLoop&) = delete;

    // Any thread: runs `task` on the network thread, soon and in order.
    void post(std::function<void()> task);
    // Any other thread: runs `task` on the network thread and waits for its result.
    template <class F>
    auto call(F&& task) -> decltype(task()) {
        std::promise<decltype(task())> promise;
        auto future = promise.get_future();
        post([&] {
            if constexpr (std::is_void_v<decltype(task())>) {
                task();
                promise.set_value();
            } else {
                promise.set_value(task());
            }
        });
        return future.get();
    }

    // use_keys (zap_handler.h) alone: `make_gate` runs on the network thread and makes whoever lets
    // these keys in.
    using MakeGate = std::function<std::shared_ptr<void>(NetLoop&)>;
    void set_keys(std::shared_ptr<KeyRing> keys, const MakeGate& make_gate);
    // Any other thread: with keys, no new connection is let in any more.
    void admit_nobody();

    // The rest: network thread only.
    [[nodiscard]] KeyRing* keys() { return keys_.get(); }  // null: without
    [[nodiscard]] StrangerLog& strangers() { return strangers_; }
    // Told the names of peers whose keys no longer count.
    using Revoked = std::function<void(const std::set<std::string>& users)>;
    void on_revoked(const void* owner, Revoked revoked) { revoked_[owner] = std::move(revoked); }
    void forget_revoked(const void* owner) { revoked_.erase(owner); }
    // Replaces the peers that the portal vouches for; who is not among them is cut off.
    void introduce(std::map<std::string, PublicKey> peers);
    [[nodiscard]] zmq::context_t& context() { return context_; }
    // `on_readable` reads until nothing is left or its own limit is reached; it is called again
    // while data waits.
    void watch(zmq::socket_ref socket, std::function<void()> on_readable);
    void unwatch(zmq::socket_ref socket);
    // Microseconds of precision; in order at equal instants; nothing when `owner` has died by then.
    void at(Instant when, const Lifeline& owner, std::function<void()> task);

  private:
    struct Watched {
        void* socket;  // ZeroMQ's handle
        std::function<void()> on_readable;
    };
    void run();
    void run_posted();
    void run_due();
    void arm_timer();
    void check_keys();
    void tell_revoked(const std::set<std::string>& users);

    zmq::context_t context_;
    int wake_descriptor_;
    int timer_descriptor_;
    Mutex mutex_;
    std::vector<std::function<void()>> posted_ ECOPIPE_GUARDED_BY(mutex_);
    std::vector<std::function<void()>> running_;  // posted, taken by the network thread
    std::vector<Watched> watched_;
    struct Timer {
        std::weak_ptr<const bool> owner;
        std::function<void()> task;
    };
    std::multimap<Instant, Timer> timers_;
    std::shared_ptr<KeyRing> keys_;
    std::shared_ptr<void> gate_;  // who lets keys in
    Lifeline lifeline_ = make_lifeline();
    StrangerLog strangers_;
    std::map<const void*, Revoked> revoked_;
    std::atomic<bool> stopping_{false};
    std::thread thread_;  // last: starts when everything above exists
};

}  // namespace ecopipe
