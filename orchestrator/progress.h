#pragma once
// What a person sees while training: a live bar with a row a device on a terminal, plain lines
// elsewhere. On stderr.

#include <string>
#include <vector>

#include "core/clock.h"
#include "orchestrator/training_engine.h"

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
    explicit Progress(bool quiet);
    ~Progress();
    // Draws at most ten times a second on a terminal, one line every two seconds elsewhere.
    void show(const ProgressView& view, const std::vector<DeviceReport>& devices);
    // A line that stays, above the live part.
    void note(const std::string& text);

  private:
    void erase();
    bool quiet_;
    bool terminal_;
    int lines_drawn_ = 0;
    Instant last_{};
};

}  // namespace ecopipe
