#pragma once
// Tests a global model on the server's own data.

#include <memory>

#include "fl_server/numbers/evaluation.h"
#include "stage_runtime/data/dataset.h"
#include "stage_runtime/engine/run/single_process.h"

namespace ecopipe {

class Evaluator {
  public:
    // `data` must outlive it.
    [[nodiscard]] static Result<std::unique_ptr<Evaluator>> create(const ModelSpec& spec,
                                                                   const Dataset& data);
    [[nodiscard]] Result<Evaluation> evaluate(const TensorMap& weights);

  private:
    Evaluator(SingleProcess process, const Dataset& data, std::int64_t batch)
        : process_(std::move(process)), data_(data), batch_(batch) {}
    SingleProcess process_;
    const Dataset& data_;
    std::int64_t batch_;
};

}  // namespace ecopipe
