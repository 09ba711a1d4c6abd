#include "stage_runtime/stage/memory_control.h"

#include <algorithm>

namespace ecopipe {
namespace {

constexpr double kPredictionErrs = 1.03;  // by as much at most, as tests hold it
constexpr double kToSpare = 0.97;         // of the budget, for a quicker point
constexpr int kLooksPressed = 4;          // before more is given up for others
constexpr double kForgets = 0.9;          // of `beyond_`, a step

}  // namespace

void MemoryControl::configure(std::vector<MemoryPoint> frontier, const Segments& planned,
                              std::uint64_t planned_bytes) {
    frontier_ = std::move(frontier);
    auto here = std::find_if(frontier_.begin(), frontier_.end(),
                             [&](const auto& point) { return point.recomputed == planned; });
    off_ = here == frontier_.end();
    if (off_)
        here = std::find_if(frontier_.begin(), frontier_.end(),
                            [&](const auto& point) { return point.peak_bytes <= planned_bytes; });
    if (here == frontier_.end() && !frontier_.empty()) --here;
    at_ = planned_ = static_cast<std::size_t>(here - frontier_.begin());
    beyond_ = 0;
    short_ = quicker_before_ = false;
    looks_ = 0;
}

std::uint64_t MemoryControl::needed(std::size_t point) const {
    return static_cast<std::uint64_t>(kPredictionErrs *
                                      static_cast<double>(frontier_[point].peak_bytes)) +
           beyond_;
}

// The quickest that fits, else the most frugal.
std::size_t MemoryControl::fitting(double bytes) const {
    std::size_t point = 0;
    while (point + 1 < frontier_.size() && static_cast<double>(needed(point)) > bytes) ++point;
    return point;
}

std::optional<MemoryControl::Move> MemoryControl::next(std::optional<MemoryBudget> budget) {
    if (frontier_.empty()) return std::nullopt;
    const std::uint64_t planned = needed(planned_);
    const std::uint64_t bytes = !budget           ? planned
                                : budget->by_hand ? budget->bytes
                                                  : std::min(budget->bytes, planned);
    const double room = static_cast<double>(bytes);
    std::size_t to = fitting(room);
    // Memory that is free for a moment is no reason to be quicker.
    const std::size_t surely = fitting(budget ? kToSpare * room : room);
    const bool quicker = surely < at_;
    if (to < at_) to = quicker && (quicker_before_ || !budget) ? surely : at_;
    if (budget && budget->pressed)
        to = std::max(to, ++looks_ > kLooksPressed ? std::min(at_ + 1, frontier_.size() - 1) : at_);
    quicker_before_ = quicker && to == at_;
    const bool is_short = needed(to) > bytes;
    if (to == at_ && is_short == short_ && !off_) return std::nullopt;
    off_ = false;
    if (to != at_) looks_ = 0;
    at_ = to;
    short_ = is_short;
    return Move{frontier_[at_].recomputed, bytes, needed(at_), frontier_[at_].recompute_ms};
}

void MemoryControl::measured(std::uint64_t peak_bytes) {
    if (frontier_.empty()) return;
    const auto predicted = static_cast<std::uint64_t>(
        kPredictionErrs * static_cast<double>(frontier_[at_].peak_bytes));
    const std::uint64_t now = peak_bytes > predicted ? peak_bytes - predicted : 0;
    beyond_ = std::max(now, static_cast<std::uint64_t>(kForgets * static_cast<double>(beyond_)));
}

}  // namespace ecopipe
