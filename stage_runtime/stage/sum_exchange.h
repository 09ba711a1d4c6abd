#pragma once
// The sums of a stage that several devices hold: what each has found goes, a layer at a time, to
// the layer's home, which adds it up in the tree's order and sends the sum back; then all make the
// same update. What is final is sent at once. What batch norm found in each micro-batch goes to all
// (sum_blocks.h, running_statistics.h). One thread, pure.
//
//   exchange.begin(step, micro_batches);
//   exchange.layer_done(m, layer); ...     // within a backward, as soon as a layer's is done
//   exchange.action_done(action); ...
//   exchange.take(address, tensor); ...    // whatever has come
//   exchange.complete()                    // nothing is owed to or by this device any more

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "domain/action.h"
#include "domain/plan_index.h"
#include "stage_runtime/stage/stage_compute.h"
#include "stage_runtime/stage/tensor_router.h"

namespace ecopipe {

class SumExchange {
  public:
    SumExchange(std::string device, StageCompute& compute, TensorRouter& router)
        : device_(std::move(device)), compute_(compute), router_(router) {}

    // The plan outlives its use here; the compute is prepared for it. `codec`: of what is sent,
    // which all then use, the one that has it whole too.
    void set_plan(const PlanIndex* plan, TensorCodec codec);
    // The device has twins: the others below are of no use without.
    [[nodiscard]] bool active() const { return plan_ != nullptr; }

    void begin(const RoutedStep& step, std::uint32_t micro_batches);
    // The gradients that micro-batch `m` has for the layer are counted.
    void layer_done(std::uint32_t micro_batch, int layer);
    void action_done(const Action& action);
    // One that nobody owes is dropped. Errors: kRunFailed for one that is not of its layer.
    [[nodiscard]] Result<void> take(const TensorAddress& address, const HostTensor& tensor);
    [[nodiscard]] bool complete() const;
    // For people: from whom something is missing, or "".
    [[nodiscard]] std::string waits_for() const;

  private:
    struct Layer {
        std::string home;
        std::set<int> own;                                // nodes that are not final yet
        std::set<std::pair<std::string, int>> awaited{};  // at home: holder and node
        bool total = false;                               // is here
    };
    [[nodiscard]] std::vector<int> nodes_of(const std::string& holder) const;
    [[nodiscard]] std::uint32_t last_of(int node) const;  // micro-batch below it
    void node_final(int layer, Layer& entry, int node);
    void add_up_if_all_are_here(int layer, Layer& entry);
    [[nodiscard]] EncodedTensor encoded(HostTensor values) const;
    [[nodiscard]] TensorAddress address(TensorKind kind, int layer) const;

    std::string device_;
    StageCompute& compute_;
    TensorRouter& router_;
    const PlanIndex* plan_ = nullptr;
    StageId stage_;
    std::vector<std::string> holders_;
    std::map<int, std::string> homes_;
    bool statistics_ = false;
    TensorCodec codec_ = TensorCodec::kNone;

    RoutedStep step_;
    std::uint32_t micro_batches_ = 0;
    std::map<int, std::uint32_t> final_at_;  // of this device's nodes: the last micro-batch below
    std::map<int, Layer> layers_;
    std::set<std::uint32_t> statistics_awaited_;
};

}  // namespace ecopipe
