#pragma once
// The server's model and evaluation data, in a process of their own (`ecopipe-fl-model`, beside
// this program): LibTorch takes some 100 MiB of memory, which a server for a month need not hold,
// and code from a TorchScript file runs outside the process that holds the journal.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/host_tensor.h"
#include "fl_server/federation.h"
#include "fl_server/model_layout.h"
#include "fl_server/worker_process.h"

namespace ecopipe {

// As the flags of ecopipe-fl-server.
struct ModelSetup {
    std::string model;
    Shape input_shape;      // of one sample, when there are no evaluation data
    int num_classes = 0;    // 0: the evaluation data's, else 10
    std::string eval_data;  // "": none
    std::string init;       // "": drawn by `seed`
    std::uint64_t seed = 0;
    int threads = 1;
};

class ModelProcess {
  public:
    // Errors: of the model, the data and the weights, as the flags' refusals; kRunFailed when the
    // program cannot start.
    [[nodiscard]] static Result<ModelProcess> start(const ModelSetup& request);

    [[nodiscard]] const std::string& model_id() const { return model_id_; }
    [[nodiscard]] const ModelLayout& layout() const { return layout_; }
    // Flat; once.
    [[nodiscard]] std::string take_initial() { return std::move(initial_); }
    // Whether there are evaluation data. Without, the process has ended.
    [[nodiscard]] bool evaluates() const { return process_.has_value(); }
    // Waits. A process that has died is started again, once. Errors: kRunFailed when that one dies
    // too; those of `start`.
    [[nodiscard]] Result<Evaluation> evaluate(const std::string& flat);

  private:
    ModelProcess(ModelSetup request, std::string model_id, ModelLayout layout, std::string initial)
        : request_(std::move(request)),
          model_id_(std::move(model_id)),
          layout_(std::move(layout)),
          initial_(std::move(initial)) {}
    [[nodiscard]] Result<Evaluation> try_evaluate(const std::string& flat) const;

    ModelSetup request_;
    std::string model_id_;
    ModelLayout layout_;
    std::string initial_;
    std::optional<WorkerProcess> process_;
};

// The header of a kSetup. That of its answer has `model_id` and `layout` (decision_json.h), and the
// initial weights as its bytes.
[[nodiscard]] Json to_json(const ModelSetup& request);
[[nodiscard]] ModelSetup model_setup(const Json& header);

}  // namespace ecopipe
