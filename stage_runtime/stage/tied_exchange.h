#pragma once
// Tied weights whose home and user are on two stages: once a step what each user has found goes
// home, and the updated weight comes back. One thread, pure.

#include <optional>
#include <string>
#include <vector>

#include "domain/plan_index.h"
#include "stage_runtime/stage/stage_compute.h"
#include "stage_runtime/stage/tensor_router.h"

namespace ecopipe {

class TiedExchange {
  public:
    TiedExchange(std::string device, StageCompute& compute, TensorRouter& router)
        : device_(std::move(device)), compute_(compute), router_(router) {}

    // The plan outlives its use here.
    void set_plan(const PlanIndex* plan) { plan_ = plan; }
    void send_gradients(const RoutedStep& step);
    void take_gradients(const std::vector<TensorAddress>& addresses);
    void send_weights(const RoutedStep& step);
    [[nodiscard]] Result<void> take_weights(const std::vector<TensorAddress>& addresses);

  private:
    [[nodiscard]] bool speaks_for(StageId stage) const;
    [[nodiscard]] std::optional<SliceId> slice_of(StageId stage) const;  // of this device

    std::string device_;
    StageCompute& compute_;
    TensorRouter& router_;
    const PlanIndex* plan_ = nullptr;
};

}  // namespace ecopipe
