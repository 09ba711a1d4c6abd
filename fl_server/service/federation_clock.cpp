#include "fl_server/service/federation_clock.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace ecopipe {

FederationClock::FederationClock(std::function<double()> process_s)
    : process_s_(std::move(process_s)) {
    ECOPIPE_CHECK(process_s_ != nullptr);
}

void FederationClock::advance() {
    ECOPIPE_CHECK(own_work_depth_ == 0);
    const double process_s = process_s_();
    const double own_s = std::exchange(own_work_s_, 0);
    if (last_process_s_ && !paused_) now_s_ += std::max(0.0, process_s - *last_process_s_ - own_s);
    last_process_s_ = process_s;
}

// The outermost one measures: what is within it is its own.
FederationClock::OwnWork::OwnWork(FederationClock& clock)
    : clock_(clock), since_s_(clock.process_s_()) {
    ++clock_.own_work_depth_;
}
FederationClock::OwnWork::~OwnWork() {
    if (--clock_.own_work_depth_ == 0) clock_.own_work_s_ += clock_.process_s_() - since_s_;
}

void FederationClock::save(Json& snapshot) const {
    snapshot["clock_s"] = now_s_;
    if (wake_at_s_) snapshot["wake_at_s"] = *wake_at_s_;
}

void FederationClock::restore(const Json& snapshot) {
    now_s_ = snapshot.at("clock_s");
    if (snapshot.contains("wake_at_s")) wake_at_s_ = snapshot.at("wake_at_s").get<double>();
}

void FederationClock::catch_up(double at_s) { now_s_ = std::max(now_s_, at_s); }

}  // namespace ecopipe
