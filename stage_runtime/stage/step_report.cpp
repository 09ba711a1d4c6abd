#include "stage_runtime/stage/step_report.h"

#include <algorithm>
#include <utility>

#include "transport/limits.h"

namespace ecopipe {
namespace {

std::int64_t since_epoch_ns(Instant instant) { return instant.time_since_epoch().count(); }

// Takes as many of the first as a message carries, if there are more than that.
template <class Entry>
std::vector<Entry> take_first(std::vector<Entry>& all, std::size_t most) {
    if (all.size() <= most) return {};
    const auto end = all.begin() + static_cast<std::ptrdiff_t>(most);
    std::vector<Entry> first(all.begin(), end);
    all.erase(all.begin(), end);
    return first;
}

}  // namespace

void StepReport::begin(Instant now, Asked asked) {
    asked_ = asked;
    started_ = now;
    done_ = {};
    losses_.clear();
}

void StepReport::ran(const Action& action, Instant started, Instant ended) {
    done_.busy_ms += to_ms(ended - started);
    if (asked_.actions)
        done_.actions.push_back({static_cast<char>(action.kind),
                                 static_cast<std::uint16_t>(action.slice),
                                 static_cast<std::uint32_t>(action.micro_batch),
                                 since_epoch_ns(started), since_epoch_ns(ended)});
}

void StepReport::loss(MicroBatchId micro_batch, const LossTotals& loss) {
    losses_[micro_batch.value] = loss;
}

void StepReport::take(StepTotals totals) {
    losses_ = std::move(totals.losses);
    done_.squared_gradient_norms = std::move(totals.squared_gradient_norms);
    done_.nonfinite_layer = totals.nonfinite_layer;
}

StepReport::Told StepReport::finish(Instant now, const MemoryByUse& peak, std::uint64_t sent) {
    // Sums of losses are added up in the order of the micro-batches, whoever ran them.
    for (const auto& [micro_batch, loss] : losses_) {
        if (asked_.each_loss)
            done_.losses.push_back({micro_batch, loss});
        else
            done_.loss.add(loss);
    }
    done_.wait_ms = std::max(0.0, to_ms(now - started_) - done_.busy_ms);
    done_.peak_memory = peak;
    done_.sent_bytes = sent - asked_.sent_before;
    Told told;
    for (;;) {
        Trace piece{take_first(done_.actions, kTraceActionsMax),
                    take_first(done_.losses, kTraceLossesMax)};
        if (piece.actions.empty() && piece.losses.empty()) break;
        told.before.push_back(std::move(piece));
    }
    told.done = std::exchange(done_, {});
    losses_.clear();
    return told;
}

}  // namespace ecopipe
