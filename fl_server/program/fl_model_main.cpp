// ecopipe-fl-model: the model and the evaluation data of an ecopipe-fl-server, which starts it.
#include <fmt/format.h>
#include <unistd.h>

#include <optional>
#include <string_view>

#include "core/command_line.h"
#include "core/log.h"
#include "fl_server/strategies/decision_json.h"
#include "fl_server/workers/evaluator.h"
#include "fl_server/workers/model_process.h"
#include "stage_runtime/data/dataset.h"
#include "stage_runtime/data/derived_dataset.h"
#include "stage_runtime/data/open_data.h"
#include "stage_runtime/data/safetensors.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "transport/wire/federation_messages.h"

namespace ecopipe {
namespace {

// Tensors are in layer order, each a parameter, a floating buffer or a counter.
Result<ModelLayout> layout_of(const ModelInfo& info, const TensorMap& weights) {
    std::vector<LayoutTensor> tensors;
    for (const NamedTensor& weight : weights) {
        LayoutTensor tensor{weight.name, weight.tensor.dtype(), weight.tensor.shape(),
                            StateKind::kParameter, 0};
        for (const TensorInfo& known : info.tensors) {
            if (known.name != weight.name) continue;
            tensor.layer = static_cast<std::uint32_t>(known.layer);
            if (known.buffer) tensor.kind = StateKind::kBuffer;
        }
        if (!is_floating(tensor.dtype)) tensor.kind = StateKind::kInteger;
        tensors.push_back(std::move(tensor));
    }
    return ModelLayout::create(std::move(tensors));
}

class ModelService {
  public:
    explicit ModelService(int descriptor) : descriptor_(descriptor) {}

    Result<void> answer(const WorkerMessage& message) {
        if (message.kind == WorkerFrame::kSetup) return set_up(model_setup(message.header));
        if (message.kind == WorkerFrame::kTest && evaluator_) return test(message.bytes);
        return fail(ExitCode::kRunFailed, "the model's process was asked nonsense");
    }

  private:
    Result<void> set_up(const ModelSetup& request) {
        ECOPIPE_RETURN_IF_ERROR(configure_log("ecopipe-fl-model", request.log_level));
        configure_torch(request.threads);
        ECOPIPE_ASSIGN_OR_RETURN(ModelSpec spec, find_model(request.model));
        spec.input_shape = request.input_shape;
        int classes = 10;
        const int channels = required_channels(spec);
        if (channels > 1 && spec.input_shape[0] == 1) spec.input_shape[0] = channels;
        if (!request.eval_data.empty()) {
            warn_without_fast_blas();
            ECOPIPE_ASSIGN_OR_RETURN(data_, open_test_data(request.eval_data, {{}, 0, channels}));
            spec.input_shape = data_->sample_shape();
            if (data_->num_classes() == 0)
                return fail(ExitCode::kUsage,
                            "--eval-data: expected classes as targets, found numbers; without it "
                            "the clusters test");
            ECOPIPE_ASSIGN_OR_RETURN(
                data_, with_classes(std::move(data_), request.classes, "--eval-data"));
            classes = data_->num_classes();
        }
        const std::vector<std::string> names =
            data_ && request.classes.empty() ? data_->class_names() : request.classes;
        if (!names.empty()) classes = static_cast<int>(names.size());
        if (request.num_classes > 0 && request.num_classes < static_cast<int>(names.size()))
            return fail(ExitCode::kUsage,
                        fmt::format("--num-classes: expected at least the {} that have names, "
                                    "found {}",
                                    names.size(), request.num_classes));
        spec.num_classes = request.num_classes > 0 ? request.num_classes : classes;
        ECOPIPE_ASSIGN_OR_RETURN(const ModelInfo info, inspect_model(spec));
        ECOPIPE_RETURN_IF_ERROR(expect_trainable(info, spec));
        ECOPIPE_ASSIGN_OR_RETURN(TensorMap weights, initial_weights(spec, request.seed));
        if (!request.init.empty()) {
            ECOPIPE_ASSIGN_OR_RETURN(const TensorMap given, read_safetensors(request.init));
            ECOPIPE_RETURN_IF_ERROR(adopt_weights(given, request.init, {}, info, weights));
        }
        if (data_) {
            ECOPIPE_ASSIGN_OR_RETURN(evaluator_, Evaluator::create(spec, *data_));
            entries_ = entries_of(weights);
        }
        ECOPIPE_ASSIGN_OR_RETURN(const ModelLayout layout, layout_of(info, weights));
        return send_worker_message(
            descriptor_, WorkerFrame::kSetup,
            {{"model_id", spec.id()}, {"layout", layout_json(layout)}, {"classes", names}},
            flatten(weights));
    }

    Result<void> test(std::string_view flat) {
        ECOPIPE_ASSIGN_OR_RETURN(const Evaluation evaluation,
                                 evaluator_->evaluate(unflatten(entries_, flat)));
        return send_worker_message(descriptor_, WorkerFrame::kTested,
                                   {{"accuracy", evaluation.accuracy}, {"loss", evaluation.loss}},
                                   {});
    }

    int descriptor_;
    std::unique_ptr<Dataset> data_;
    std::unique_ptr<Evaluator> evaluator_;
    std::vector<TensorEntry> entries_;
};

Result<ExitCode> run(int argc, const char* const* argv) {
    if (argc == 2 && std::string_view(argv[1]) == "worker") {
        ModelService service(STDIN_FILENO);
        return serve_as_worker(
            STDIN_FILENO, [&](const WorkerMessage& message) { return service.answer(message); });
    }
    CommandLine line("ecopipe-fl-model",
                     "the model and the evaluation data of an ecopipe-fl-server, which starts it");
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    return fail(ExitCode::kUsage, "ecopipe-fl-server starts this program itself");
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    return ecopipe::run_program("ecopipe-fl-model", [&] { return ecopipe::run(argc, argv); });
}
