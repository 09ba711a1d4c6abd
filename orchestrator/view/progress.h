#pragma once
// What a person sees on stderr while training: on a terminal a live table with a row a device,
// plain lines elsewhere. The terminal's modes and cursor are left alone, so that nothing has to be
// put back, however the program ends.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "core/mutex.h"
#include "orchestrator/view/run_view.h"

namespace ecopipe {

struct ProgressView {
    std::uint64_t step = 0;   // committed
    std::uint64_t steps = 0;  // in all
    double epoch = 0;
    double loss = 0;
    double samples_per_s = 0;
    double step_ms = 0;
};

class Progress {
  public:
    // On a terminal the log's lines go through here from now on, above the table.
    Progress(bool quiet, RunView& view);
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress();
    // After a committed step. Elsewhere than on a terminal: one line every two seconds.
    void show(const ProgressView& step) ECOPIPE_EXCLUDES(mutex_);
    // A line that stays, above the live part.
    void note(const std::string& text) ECOPIPE_EXCLUDES(mutex_);
    // Draws the table anew, if there is one and something changed, or the window's size. From any
    // thread.
    void draw() ECOPIPE_EXCLUDES(mutex_);
    // The table as it is stays, and what comes is below it.
    void finish() ECOPIPE_EXCLUDES(mutex_);

  private:
    void write(std::string_view above) ECOPIPE_REQUIRES(mutex_);
    void compose(std::string& out, std::string_view above) ECOPIPE_REQUIRES(mutex_);

    RunView& view_;
    bool quiet_;
    Mutex mutex_;
    bool live_ ECOPIPE_GUARDED_BY(mutex_);
    std::vector<std::size_t> drawn_ ECOPIPE_GUARDED_BY(mutex_);  // each standing line's width
    std::uint64_t revision_ ECOPIPE_GUARDED_BY(mutex_) = 0;
    std::size_t columns_ ECOPIPE_GUARDED_BY(mutex_) = 0;
    std::size_t rows_ ECOPIPE_GUARDED_BY(mutex_) = 0;
    Instant last_ ECOPIPE_GUARDED_BY(mutex_){};
};

}  // namespace ecopipe
