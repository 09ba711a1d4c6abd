#pragma once
// How many micro-batches in flight a pipeline needs to keep a pace, and the pace that its memory
// allows.
//
// 1f1b's strict order closes cycles. For stages s < t, B_t(m) comes before B_s(m), which comes
// before F_s(m + K_s), which comes before F_t(m + K_s), which comes before B_t(m + K_s - K_t + 1).
// So K_s - K_t + 1 micro-batches pass in no less than the round trip from s to t and back, W(s, t);
// and K_s in no less than the whole one, W(s, S). At a pace of p ms a micro-batch the least counts
// are therefore K_s = max over t of K_t - 1 + ceil(W(s, t) / p). With equal neighbours (K_s = K_t)
// the two stages and the link between them run one after the other: why memory that caps K costs so
// much.

#include <span>
#include <vector>

namespace ecopipe {

struct PaceStage {
    double own_ms = 0;     // forward and backward of a micro-batch
    double travel_ms = 0;  // to the next stage and back; 0 for the last
};

// ceil of what is not negative, but for rounding errors and without the library call that std::ceil
// is on plain x86-64 (a third of the search); at most 1e9.
[[nodiscard]] int whole_above(double value);

// The least counts for `pace_ms`, at most `micro_batches` each; they do not increase. False when
// one exceeds its cap (the counts are then unfinished).
bool counts_at_pace(std::span<const PaceStage> stages, double pace_ms, std::span<const int> caps,
                    int micro_batches, std::vector<int>& counts);

// The shortest pace that the caps allow, to a thousandth, with its counts. At least the largest
// own_ms.
double least_pace_ms(std::span<const PaceStage> stages, std::span<const int> caps,
                     int micro_batches, std::vector<int>& counts);

}  // namespace ecopipe
