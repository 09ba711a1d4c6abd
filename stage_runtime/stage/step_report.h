#pragma once
// What a device tells its portal of one step: its losses, its times, what it held and sent, in
// pieces that are no larger than a message may be. Pure; one thread.

#include <cstdint>
#include <map>
#include <vector>

#include "core/clock.h"
#include "core/memory_use.h"
#include "domain/action.h"
#include "domain/ids.h"
#include "domain/loss.h"
#include "transport/wire/messages.h"

namespace ecopipe {

class StepReport {
  public:
    struct Asked {
        bool actions = false;           // the times of each action
        bool each_loss = false;         // several hold this stage: the portal adds up
        std::uint64_t sent_before = 0;  // bytes
    };
    void begin(Instant now, Asked asked);
    void ran(const Action& action, Instant started, Instant ended);
    // Of one micro-batch in an evaluation.
    void loss(MicroBatchId micro_batch, const LossTotals& loss);
    // Of a whole training step.
    void take(StepTotals totals);

    struct Told {
        std::vector<Trace> before;  // to be sent first, in this order
        Done done;
    };
    // Ends the step. `sent` is a count of bytes as in `Asked`.
    [[nodiscard]] Told finish(Instant now, const MemoryByUse& peak, std::uint64_t sent);

  private:
    Asked asked_;
    Instant started_{};
    Done done_;
    std::map<std::uint32_t, LossTotals> losses_;  // by micro-batch
};

}  // namespace ecopipe
