#include "planner/simulate/memory_play.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "domain/sum_blocks.h"

namespace ecopipe {
namespace {

// While a tensor is in memory: from until before until.
struct Stay {
    double from_ms = 0;
    double until_ms = 0;
    double bytes = 0;
};

using Way = std::tuple<int, int, int>;  // from stage, to stage, micro-batch

// What of them is there, at instants that do not go back.
class Alive {
  public:
    explicit Alive(const std::vector<Stay>& stays) {
        for (const Stay& stay : stays) {
            changes_.emplace_back(stay.from_ms, stay.bytes);
            changes_.emplace_back(stay.until_ms, -stay.bytes);
        }
        std::sort(changes_.begin(), changes_.end());
    }
    double at(double ms) {
        for (; next_ < changes_.size() && changes_[next_].first <= ms; ++next_)
            bytes_ += changes_[next_].second;
        return bytes_;
    }

  private:
    std::vector<std::pair<double, double>> changes_;
    std::size_t next_ = 0;
    double bytes_ = 0;
};

// The most of each size that are there at once, together.
double most_of_each_size(const std::vector<Stay>& stays) {
    std::map<double, std::vector<std::pair<double, int>>> changes;  // by size
    for (const Stay& stay : stays) {
        changes[stay.bytes].emplace_back(stay.from_ms, 1);
        changes[stay.bytes].emplace_back(stay.until_ms, -1);
    }
    double bytes = 0;
    for (auto& [size, of_size] : changes) {
        std::sort(of_size.begin(), of_size.end());  // who goes makes room for who comes then
        int there = 0;
        int most = 0;
        for (const auto& [at_ms, change] : of_size) most = std::max(most, there += change);
        bytes += size * most;
    }
    return bytes;
}

std::uint64_t whole(double bytes) { return static_cast<std::uint64_t>(std::ceil(bytes)); }

class MemoryPlay {
  public:
    MemoryPlay(const PlayedPlan& played, const Plan& plan)
        : played_(played),
          arriving_(played.lists.size()),
          leaving_(played.lists.size()),
          ends_(played.spans.size()),
          made_(played.spans.size()) {
        std::vector<std::vector<int>> holders(plan.stages.size());
        for (int holder = 0; const HeldStage& held : held_stages(plan)) {
            bytes_.push_back(
                played.model.stage_bytes(played.spans[bytes_.size()], held.holder.recomputed));
            holders[held.stage].push_back(holder++);
            shared_.push_back(!plan.stages[held.stage].twins.empty());
        }
        for (const ActionSpan& action : played.timeline.actions) note(action);
        for (const TransferSpan& transfer : played.timeline.transfers)
            travels_[{transfer.from_stage, transfer.to_stage, transfer.micro_batch}] = {
                transfer.start_ms, transfer.end_ms};
        const StageLoads loads = played.model.stage_loads(plan, played.spans);
        for (const StageLoad& load : loads.values) follow(load, holders);
        for (const StageLoad& load : loads.gradients) follow(load, holders);
    }

    [[nodiscard]] MemoryByUse peak(int device) const {
        MemoryByUse fixed;
        double weights = 0, moments = 0;
        double others = 0;  // the other holders' sums
        for (std::size_t s = 0; s < bytes_.size(); ++s) {
            if (device_of(static_cast<int>(s)) != device) continue;
            weights += bytes_[s].weights;
            moments += bytes_[s].moments;
            if (shared_[s]) others += bytes_[s].trainable;
        }
        fixed[MemoryUse::kWeights] = whole(weights);
        fixed[MemoryUse::kMoments] = whole(moments);
        const auto d = static_cast<std::size_t>(device);
        fixed[MemoryUse::kArriving] = whole(most_of_each_size(arriving_[d]));
        MemoryByUse most = fixed;
        Alive leaving(leaving_[d]);
        double held = 0;
        std::map<int, std::set<int>> begun;  // the sums of each stage
        double gradients = others;
        for (const ActionSpan& span : played_.timeline.actions) {
            if (span.device != device) continue;
            const StageBytes& bytes = bytes_[static_cast<std::size_t>(span.stage)];
            held -= held_before(bytes, span.action.kind);
            std::set<int>& sums = begun[span.stage];
            const bool first =
                adds(span.action.kind) &&
                sums.insert(span.action.micro_batch % played_.costs.sum_blocks).second;
            const Working working = working_of(bytes, span.action.kind, first);
            MemoryByUse now = fixed;
            now[MemoryUse::kGradients] = whole(gradients + working.gradients);
            now[MemoryUse::kStash] = whole(held + working.stash);
            now[MemoryUse::kWorkspace] = whole(working.workspace);
            if (first) gradients += bytes.trainable;
            held += held_after(bytes, span.action.kind);
            now[MemoryUse::kLeaving] = whole(leaving.at(span.start_ms));
            if (now.total() > most.total()) most = now;
        }
        return most;
    }

  private:
    [[nodiscard]] int device_of(int stage) const { return played_.costs.place.device(stage); }

    // What is kept of a micro-batch before one of its actions, and after it.
    [[nodiscard]] static double held_before(const StageBytes& bytes, ActionKind kind) {
        if (kind == ActionKind::kForward) return 0;
        return kind == ActionKind::kWeightGradient ? bytes.pending : bytes.held;
    }
    [[nodiscard]] static double held_after(const StageBytes& bytes, ActionKind kind) {
        if (kind == ActionKind::kForward) return bytes.held;
        return kind == ActionKind::kInputGradient ? bytes.pending : 0;
    }
    // Whether it adds to the gradients' sums.
    [[nodiscard]] static bool adds(ActionKind kind) {
        return kind == ActionKind::kBackward || kind == ActionKind::kWeightGradient;
    }
    // What it takes while the action runs; `first`: of its sum.
    [[nodiscard]] static Working working_of(const StageBytes& bytes, ActionKind kind, bool first) {
        switch (kind) {
            case ActionKind::kForward:
                return bytes.forward;
            case ActionKind::kBackward:
                return first ? bytes.first_backward : bytes.running;
            case ActionKind::kInputGradient:
                return bytes.input_gradient;
            case ActionKind::kWeightGradient:
                // All that is kept goes while the sums come.
                return {bytes.pending, bytes.largest_workspace, 0};
        }
        return {};
    }

    void note(const ActionSpan& span) {
        const auto stage = static_cast<std::size_t>(span.stage);
        double& end = ends_[stage][span.action.micro_batch];
        end = std::max(end, span.end_ms);  // of the last of its actions
        if (span.action.kind == ActionKind::kForward)
            made_[stage][span.action.micro_batch].forward_end_ms = span.end_ms;
        else if (span.action.kind != ActionKind::kWeightGradient)
            made_[stage][span.action.micro_batch].backward_end_ms = span.end_ms;
    }

    void follow(const StageLoad& load, const std::vector<std::vector<int>>& holders) {
        if (load.bytes <= 0) return;
        for (const int to : holders[static_cast<std::size_t>(load.to)]) {
            bool comes = load.from < 0;
            if (comes) follow(-1, to, load.bytes);
            for (std::size_t i = 0;
                 load.from >= 0 && i < holders[static_cast<std::size_t>(load.from)].size(); ++i) {
                const int from = holders[static_cast<std::size_t>(load.from)][i];
                if (device_of(from) == device_of(to)) continue;  // handed over, not sent
                comes = true;
                follow(from, to, load.bytes);
            }
            if (!comes || load.from > load.to) continue;
            // An input that came is counted there.
            StageBytes& bytes = bytes_[static_cast<std::size_t>(to)];
            bytes.held = std::max(0.0, bytes.held - load.bytes);
            for (Working* working :
                 {&bytes.forward, &bytes.running, &bytes.first_backward, &bytes.input_gradient})
                working->stash = std::max(0.0, working->stash - load.bytes);
        }
    }
    // All micro-batches of what goes from one holder to another: there from when it begins to come
    // until the micro-batch is done with, here until the link has it.
    void follow(int from, int to, double bytes) {
        for (const auto& [micro_batch, end_ms] : ends_[static_cast<std::size_t>(to)]) {
            const auto made = made_ms(from, from > to, micro_batch);
            if (!made) continue;
            const auto travel = travels_.find({from, to, micro_batch});
            const double start_ms = travel != travels_.end() ? travel->second.first : *made;
            const double left_ms = travel != travels_.end() ? travel->second.second : *made;
            arriving_[static_cast<std::size_t>(device_of(to))].push_back({start_ms, end_ms, bytes});
            if (from >= 0)
                leaving_[static_cast<std::size_t>(device_of(from))].push_back(
                    {*made, left_ms, bytes});
        }
    }
    // When the tensor of a micro-batch is there to be sent; nothing when it is none of the
    // sender's.
    [[nodiscard]] std::optional<double> made_ms(int from, bool gradient, int micro_batch) const {
        if (from < 0) return 0;
        const auto& of_stage = made_[static_cast<std::size_t>(from)];
        const auto found = of_stage.find(micro_batch);
        if (found == of_stage.end()) return std::nullopt;
        return gradient ? found->second.backward_end_ms : found->second.forward_end_ms;
    }

    struct Made {  // the output, and the input's gradient
        double forward_end_ms = 0;
        double backward_end_ms = 0;
    };
    const PlayedPlan& played_;
    std::vector<StageBytes> bytes_;                      // of each stage, or holder
    std::vector<bool> shared_;                           // with twins
    std::vector<std::vector<Stay>> arriving_, leaving_;  // of each device
    std::vector<std::map<int, double>> ends_;            // of each stage, by micro-batch
    std::vector<std::map<int, Made>> made_;
    std::map<Way, std::pair<double, double>> travels_;
};

}  // namespace

std::vector<MemoryByUse> step_memory(const PlayedPlan& played, const Plan& plan) {
    const MemoryPlay play(played, plan);
    std::vector<MemoryByUse> out;
    for (std::size_t d = 0; d < played.lists.size(); ++d)
        out.push_back(play.peak(static_cast<int>(d)));
    return out;
}

}  // namespace ecopipe
