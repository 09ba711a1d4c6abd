#pragma once
// A federation's own clock, of deadlines and latencies, and the deadline that its strategy waits
// for. It stands still while the server works for itself (folds, commits, writes, evaluates), while
// the operator has paused it, and while nobody runs it: none of that is a cluster's time. Pure.
//
// It moves at `advance` alone: within a turn all that happens, happens at one instant.

#include <functional>
#include <optional>

#include "core/strict_json.h"

namespace ecopipe {

class FederationClock {
  public:
    // `process_s`: seconds of any clock that never goes back within this process; where that one
    // starts does not matter.
    explicit FederationClock(std::function<double()> process_s);

    // Seconds that the federation has run, over restarts, as of the last `advance`.
    [[nodiscard]] double now_s() const { return now_s_; }
    // Takes in what has passed since the last one; the first in a process takes in nothing. Not
    // during own work.
    void advance();

    // While one lives, the clock stands still. They nest; the clock must outlive them.
    class OwnWork {
      public:
        explicit OwnWork(FederationClock& clock);
        ~OwnWork();
        OwnWork(const OwnWork&) = delete;
        OwnWork& operator=(const OwnWork&) = delete;

      private:
        FederationClock& clock_;
        double since_s_;  // of the process's clock
    };

    // The time between two `advance`s counts or not as was said last before the second: a pause
    // begins, and ends, with the turn in which it is said.
    void pause(bool on) { paused_ = on; }
    [[nodiscard]] bool paused() const { return paused_; }

    // The strategy's deadline: one at a time, the newest said holds.
    void wake_at(double at_s) { wake_at_s_ = at_s; }
    void forget_deadline() { wake_at_s_.reset(); }
    [[nodiscard]] bool due() const { return wake_at_s_ && now_s_ >= *wake_at_s_; }
    // There is one, and it is yet to come.
    [[nodiscard]] bool waits() const { return wake_at_s_ && !due(); }

    // Of the snapshot: `clock_s`, and `wake_at_s` while there is a deadline. A pause is no part of
    // it. `restore` throws Json::exception for what is missing or of another type.
    void save(Json& snapshot) const;
    void restore(const Json& snapshot);
    // An event after the snapshot was at `at_s`. It never goes back.
    void catch_up(double at_s);

  private:
    std::function<double()> process_s_;
    double now_s_ = 0;
    std::optional<double> last_process_s_;  // at the last advance
    double own_work_s_ = 0;                 // since then
    int own_work_depth_ = 0;
    std::optional<double> wake_at_s_;
    bool paused_ = false;
};

}  // namespace ecopipe
