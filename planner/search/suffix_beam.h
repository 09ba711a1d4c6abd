#pragma once
// Whole 1f1b pipelines built stage by stage from the last one up: a beam search over device order,
// subset, cuts and recomputation at once.
//
// The problem: with many devices the order and the subset decide, and annealing whole pipelines in
// small steps was seen to end in the wrong ones. Building them asks of each stage only what is best
// in front of those that stand. Greedily, the first wrong choice stays; to follow every choice
// there are too many. A beam keeps the most promising of each length (Lowerre, "The HARPY speech
// recognition system", 1976). It is as good as its judgement of what is unfinished (rest_guess.h):
// all that is asked of a stage must depend on those that stand.
//
// Why from the last stage: let R be the time of one micro-batch's whole way down and up, and D = T
// - R, the spread, what the other M - 1 add to a step of T. With W(s, t) the round trip from stage
// s to t and back, own_s = f_s + b_s and o a link's time a transfer, a step of T demands of every
// stage s
//   M own_s <= D + W(s, S)              (the stage is busy; what is not W(s, S) are its ends)
//   (M - 1) b_s + (M - K_s) f_s <= D    (only K_s forwards can run before its first backward)
//   (M - 1) o <= D                      (the first micro-batch's way, and M - 1 more transfers)
//   hops W(s, t) <= D for later t       (the cycles that 1f1b's order closes, pace.h; hops = 1 +
//                                        floor((M - 1 - K_s) / (K_s - K_t + 1)), 0 when K_s = M)
// and all of it is known once D is and the stages after s are placed. So for each D the beam looks
// for the stages with the least R. These demands are necessary, not sufficient: the stages from s
// on are also simulated by themselves, and K_s is the least count with which they keep to D.

#include <cstdint>
#include <vector>

#include "planner/cost/cost_model.h"
#include "planner/cost/rest_guess.h"
#include "planner/simulate/wavefront.h"

namespace ecopipe {

// Not thread-safe: keeps scratch memory.
class SuffixBeam {
  public:
    // `model` has at least 2 micro-batches.
    explicit SuffixBeam(const CostModel& model);

    struct Completion {
        double step_ms;  // simulated, but for the updates
        std::vector<StageSpan> stages;
        std::vector<int> in_flight;
    };
    // Keeps the `width` most promising suffixes of each length. Gives the best `count_max`
    // pipelines found for D = `spread_ms`, the best first. Suffixes and pipelines that promise no
    // step below `limit_ms` are dropped.
    [[nodiscard]] std::vector<Completion> build(double spread_ms, double limit_ms,
                                                std::size_t width, std::size_t count_max);
    // Since the start, in actions of the wavefront.
    [[nodiscard]] std::uint64_t work() const { return work_; }
    // What a build of `width` costs, roughly.
    [[nodiscard]] static double expected_work(const CostModel& model, double width);

  private:
    struct Node {
        int after = -1;  // the node of the next stage; -1 for the last stage
        StageSpan span;
        int begin = 0;          // its first atom
        int in_flight = 1;      // the least that the demands allow; then what the simulation needs
        int in_flight_max = 1;  // what memory allows
        double forward_ms = 0, backward_ms = 0;
        Transfer cut;            // to the next stage, and back
        double round_ms = 0;     // W(s, S)
        double promised_ms = 0;  // a step that it may end in
        std::uint64_t key = 0;   // of the set of devices
    };
    // A device in front of a node.
    struct Place {
        int node;
        int device;
        int end;  // its last atom, plus one
        Transfer cut;
        double after_ms;  // W of the stage after it
    };
    struct Later {
        double round_ms;  // from the node that is extended to this stage and back
        int in_flight;
    };

    void extend(int node);
    void open_chain(int node);
    void fill(const Place& place);
    bool try_stage(const Place& place, int begin, bool recompute);
    [[nodiscard]] int furthest_begin(const Place& place) const;
    [[nodiscard]] int least_count(const Node& node) const;
    void finish(Node node);
    void keep_best(std::size_t width);
    void choose_count(Node& node);
    double simulate(const Node& front, int in_flight, const Transfer& feed);
    [[nodiscard]] Completion completion(double step_ms, const Node& front) const;
    [[nodiscard]] const Node* next_of(const Node& node) const {
        return node.after < 0 ? nullptr : &nodes_[static_cast<std::size_t>(node.after)];
    }

    const CostModel& model_;
    int micro_batches_;
    RestGuess guess_;
    std::vector<int> first_layer_;  // of each atom, and the layer count
    std::vector<std::uint64_t> device_key_;

    double spread_ms_ = 0;
    double limit_ms_ = 0;
    std::vector<Node> nodes_;       // of all lengths
    std::vector<Node> candidates_;  // for the next length
    std::vector<Node> complete_;
    std::vector<Later> chain_;
    std::vector<char> used_;
    Wavefront wavefront_;
    std::vector<WaveStage> wave_;
    std::uint64_t work_ = 0;
};

}  // namespace ecopipe
