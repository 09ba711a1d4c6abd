#include "stage_runtime/data/batch_reader.h"

#include <fmt/format.h>

#include <chrono>

#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"

namespace ecopipe {
namespace {
constexpr auto kReadDeadline = std::chrono::minutes(10);
constexpr auto kLookEvery = std::chrono::seconds(1);
constexpr auto kAskAgain = std::chrono::seconds(1);
}  // namespace

BatchReader::BatchReader(Make make, int threads)
    : make_(std::move(make)), ahead_(static_cast<std::size_t>(threads) + 1) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { read(); });
}

BatchReader::~BatchReader() {
    {
        const MutexLock lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void BatchReader::start(std::uint64_t first, std::uint64_t end) {
    {
        const MutexLock lock(mutex_);
        ++generation_;
        next_ = taken_ = first;
        end_ = end;
        ready_.clear();
    }
    changed_.notify_all();
}

Result<std::vector<Batch>> BatchReader::take(std::uint64_t step) {
    MutexLock lock(mutex_);
    ECOPIPE_CHECK(step == taken_ && step < end_);
    WatchedDeadline deadline(monotonic_now(), kReadDeadline, kLookEvery);
    while (!ready_.contains(step)) {
        if (changed_.wait_until(mutex_, deadline.look_again()) || ready_.contains(step)) continue;
        if (deadline.over(monotonic_now()))
            return fail(ExitCode::kRunFailed,
                        fmt::format("the batch of step {} was not read within {} minutes", step + 1,
                                    kReadDeadline.count()));
    }
    auto batch = std::move(ready_.extract(step).mapped());
    ++taken_;
    lock.unlock();
    changed_.notify_all();
    return batch;
}

Result<std::vector<Batch>> BatchReader::make(std::uint64_t step) const {
    try {
        return make_(step);
    } catch (const std::exception& error) {  // it may not leave a thread
        return fail(ExitCode::kRunFailed, fmt::format("reading the batch of step {}: {}", step + 1,
                                                      one_line(error.what())));
    }
}

void BatchReader::read() {
    MutexLock lock(mutex_);
    while (!stopping_) {
        if (next_ >= end_ || next_ >= taken_ + ahead_) {
            changed_.wait_until(mutex_, monotonic_now() + kAskAgain);
            continue;
        }
        const std::uint64_t step = next_++;
        const std::uint64_t generation = generation_;
        lock.unlock();
        auto batch = make(step);
        lock.lock();
        if (generation == generation_) ready_.emplace(step, std::move(batch));
        changed_.notify_all();
    }
}

}  // namespace ecopipe
