#pragma once
// Tests a global model on the server's own data.

#include <memory>

#include "stage_runtime/data/dataset.h"
#include "stage_runtime/engine/single_process.h"

namespace ecopipe {

struct Evaluation {
    double loss = 0;
    double accuracy = 0;
};

class Evaluator {
  public:
    // `data` must outlive it.
    [[nodiscard]] static Result<std::unique_ptr<Evaluator>> create(const ModelSpec& spec,
                                                                   const Dataset& data);
    [[nodiscard]] Result<Evaluation> evaluate(const TensorMap& weights);

  private:
    Evaluator(SingleProcess process, const Dataset& data)
        : process_(std::move(process)), data_(data) {}
    SingleProcess process_;
    const Dataset& data_;
};

}  // namespace ecopipe
