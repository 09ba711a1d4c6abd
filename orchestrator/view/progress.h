#pragma once
// What a person sees on stderr while training: on a terminal a live table with a row a device,
// plain lines elsewhere. The terminal's modes and cursor are left alone, so that nothing has to be
// put back, however the program ends.

#include <cstddef>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.h"
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
    void show(const ProgressView& step);
    // A line that stays, above the live part.
    void note(const std::string& text);
    // Draws the table anew, if there is one and something changed, or the window's size. From any
    // thread.
    void draw();
    // The table as it is stays, and what comes is below it.
    void finish();

  private:
    // With the lock held.
    void write(std::string_view above);
    void compose(std::string& out, std::string_view above);

    RunView& view_;
    bool quiet_;
    bool live_;
    std::mutex mutex_;
    std::vector<std::size_t> drawn_;  // the width of each line that stands
    std::uint64_t revision_ = 0;
    std::size_t columns_ = 0;
    std::size_t rows_ = 0;
    Instant last_{};
};

}  // namespace ecopipe
