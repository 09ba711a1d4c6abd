#pragma once
// The server's model and evaluation data, in a process of their own (`ecopipe-fl-model`, beside
// this program): LibTorch takes some 100 MiB of memory, which a server for a month need not hold,
// and code from a TorchScript file runs outside the process that holds the journal.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "fl_server/numbers/evaluation.h"
#include "fl_server/numbers/model_layout.h"
#include "fl_server/workers/worker_process.h"

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
    std::string log_level = "info";
    std::vector<std::string> classes;  // that labels stand for; empty: the evaluation data's
};

class ModelProcess {
  public:
    // `patience_s`: for every answer. Errors: of the model, the data and the weights, as the flags'
    // refusals; kRunFailed when the program cannot start or gives no answer.
    [[nodiscard]] static Result<ModelProcess> start(const ModelSetup& request,
                                                    std::uint64_t patience_s);

    [[nodiscard]] const std::string& model_id() const { return model_id_; }
    [[nodiscard]] const ModelLayout& layout() const { return layout_; }
    // Those given, else the evaluation data's; empty when neither has names.
    [[nodiscard]] const std::vector<std::string>& classes() const { return classes_; }
    // Flat; once.
    [[nodiscard]] std::string take_initial() { return std::move(initial_); }
    // Whether there are evaluation data. Without, the process has ended.
    [[nodiscard]] bool evaluates() const { return process_.has_value(); }
    // Waits. A process that has died or gives no answer is ended and started again, once. Errors:
    // kRunFailed when that one fails too; those of `start`; what the test itself answers.
    [[nodiscard]] Result<Evaluation> evaluate(const std::string& flat);

  private:
    ModelProcess(ModelSetup request, std::uint64_t patience_s, std::string model_id,
                 ModelLayout layout, std::vector<std::string> classes, std::string initial)
        : request_(std::move(request)),
          patience_s_(patience_s),
          model_id_(std::move(model_id)),
          layout_(std::move(layout)),
          classes_(std::move(classes)),
          initial_(std::move(initial)) {}
    [[nodiscard]] Result<WorkerMessage> ask(const std::string& flat) const;

    ModelSetup request_;
    std::uint64_t patience_s_;
    std::string model_id_;
    ModelLayout layout_;
    std::vector<std::string> classes_;
    std::string initial_;
    std::optional<WorkerProcess> process_;
};

// The header of a kSetup. That of its answer has `model_id` and `layout` (decision_json.h), and the
// initial weights as its bytes.
[[nodiscard]] Json to_json(const ModelSetup& request);
[[nodiscard]] ModelSetup model_setup(const Json& header);

}  // namespace ecopipe
