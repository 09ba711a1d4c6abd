#include "transport/net/net_loop.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>

#include "core/check.h"
#include "core/log.h"
#include "transport/security/key_ring.h"

namespace ecopipe {
namespace {

// Asks the scheduler (EEVDF, Linux 6.12 and later; others ignore it) to let this thread, and the
// ZeroMQ threads it starts, run at once when they wake: they work for microseconds, and other
// devices wait for it, while threads that compute hold every core. Needs no privilege.
void prefer_short_slices() {
    struct {  // struct sched_attr of <linux/sched/types.h>, which glibc 2.36 does not declare
        std::uint32_t size = sizeof *this;
        std::uint32_t policy = SCHED_OTHER;
        std::uint64_t flags = 0;
        std::int32_t nice = 0;
        std::uint32_t priority = 0;
        std::uint64_t runtime = 100'000;  // ns: the shortest slice there is
        std::uint64_t deadline = 0;
        std::uint64_t period = 0;
    } attributes;
    attributes.nice = ::getpriority(PRIO_PROCESS, 0);
    ::syscall(SYS_sched_setattr, 0, &attributes, 0U);  // without it, only slower
}

}  // namespace

NetLoop::NetLoop()
    : context_(1),
      wake_descriptor_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      timer_descriptor_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)),
      thread_([this] { run(); }) {
    ECOPIPE_CHECK(wake_descriptor_ >= 0 && timer_descriptor_ >= 0);
}

NetLoop::~NetLoop() {
    admit_nobody();
    post([this] { stopping_ = true; });
    thread_.join();
    ::close(wake_descriptor_);
    ::close(timer_descriptor_);
}

void NetLoop::set_keys(std::shared_ptr<KeyRing> keys, const MakeGate& make_gate) {
    call([&] {
        keys_ = std::move(keys);
        gate_ = make_gate(*this);
        check_keys();
    });
}

void NetLoop::admit_nobody() {
    call([this] { gate_.reset(); });
}

void NetLoop::check_keys() {
    tell_revoked(keys_->refresh());
    at(monotonic_now() + kKeysCheckEvery, lifeline_, [this] { check_keys(); });
}

void NetLoop::introduce(std::map<std::string, PublicKey> peers) {
    if (keys_) tell_revoked(keys_->introduce(std::move(peers)));
}

void NetLoop::tell_revoked(const std::set<std::string>& users) {
    if (users.empty()) return;
    for (const std::string& user : users)
        log_info("keys: the key of {} no longer counts; its connections are cut", user);
    const auto all = revoked_;  // one that is told may take itself off
    for (const auto& [owner, revoked] : all)
        if (revoked_.contains(owner)) revoked(users);
}

void NetLoop::post(std::function<void()> task) {
    {
        const MutexLock lock(mutex_);
        posted_.push_back(std::move(task));
    }
    const std::uint64_t one = 1;
    // A full counter already wakes the loop, so a failed write loses nothing.
    static_cast<void>(!::write(wake_descriptor_, &one, sizeof one));
}

void NetLoop::watch(zmq::socket_ref socket, std::function<void()> on_readable) {
    watched_.push_back({socket.handle(), std::move(on_readable)});
}

void NetLoop::unwatch(zmq::socket_ref socket) {
    std::erase_if(watched_, [&](const Watched& w) { return w.socket == socket.handle(); });
}

void NetLoop::at(Instant when, const Lifeline& owner, std::function<void()> task) {
    timers_.emplace(when, Timer{owner, std::move(task)});
}

void NetLoop::run_posted() {
    std::uint64_t count = 0;
    static_cast<void>(!::read(wake_descriptor_, &count, sizeof count));
    {
        const MutexLock lock(mutex_);
        running_.swap(posted_);
    }
    for (auto& task : running_) task();
    running_.clear();
}

void NetLoop::run_due() {
    while (!timers_.empty() && timers_.begin()->first <= monotonic_now()) {
        const Timer timer = std::move(timers_.begin()->second);
        timers_.erase(timers_.begin());
        if (!timer.owner.expired()) timer.task();
    }
}

void NetLoop::arm_timer() {
    itimerspec when{};
    if (!timers_.empty()) {
        const auto ns =
            std::max<std::int64_t>(timers_.begin()->first.time_since_epoch().count(), 1);
        when.it_value.tv_sec = ns / 1'000'000'000;
        when.it_value.tv_nsec = ns % 1'000'000'000;
    }
    ::timerfd_settime(timer_descriptor_, TFD_TIMER_ABSTIME, &when, nullptr);
}

void NetLoop::run() {
    prefer_short_slices();
    std::vector<zmq::pollitem_t> items;  // used again at every turn
    while (!stopping_) {
        run_posted();
        run_due();
        arm_timer();
        items.assign({{nullptr, wake_descriptor_, ZMQ_POLLIN, 0},
                      {nullptr, timer_descriptor_, ZMQ_POLLIN, 0}});
        const std::size_t fixed = items.size();
        for (const Watched& w : watched_) items.push_back({w.socket, 0, ZMQ_POLLIN, 0});
        zmq::poll(items.data(), items.size(), std::chrono::milliseconds(1000));
        std::uint64_t expirations = 0;
        static_cast<void>(!::read(timer_descriptor_, &expirations, sizeof expirations));
        for (std::size_t i = fixed; i < items.size(); ++i) {
            if ((items[i].revents & ZMQ_POLLIN) == 0) continue;
            // The handler may watch or unwatch, so look the socket up again.
            const auto it = std::find_if(watched_.begin(), watched_.end(), [&](const Watched& w) {
                return w.socket == items[i].socket;
            });
            if (it == watched_.end()) continue;
            const auto handler = it->on_readable;
            handler();
        }
    }
}

}  // namespace ecopipe
