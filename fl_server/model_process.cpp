#include "fl_server/model_process.h"

#include <filesystem>

#include "core/log.h"
#include "fl_server/decision_json.h"

namespace ecopipe {
namespace {

Result<WorkerProcess> start_process() {
    std::error_code error;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
    return WorkerProcess::start(program.parent_path() / "ecopipe-fl-model", "worker");
}

Result<WorkerMessage> set_up(const WorkerProcess& process, const ModelSetup& request) {
    ECOPIPE_RETURN_IF_ERROR(process.send(WorkerFrame::kSetup, to_json(request), {}));
    return process.receive();
}

}  // namespace

Json to_json(const ModelSetup& request) {
    return {{"model", request.model},
            {"input_shape", request.input_shape},
            {"num_classes", request.num_classes},
            {"eval_data", request.eval_data},
            {"init", request.init},
            {"seed", request.seed},
            {"threads", request.threads}};
}

ModelSetup model_setup(const Json& header) {
    ModelSetup request;
    request.model = header.at("model").get<std::string>();
    request.input_shape = header.at("input_shape").get<Shape>();
    request.num_classes = header.at("num_classes").get<int>();
    request.eval_data = header.at("eval_data").get<std::string>();
    request.init = header.at("init").get<std::string>();
    request.seed = header.at("seed").get<std::uint64_t>();
    request.threads = header.at("threads").get<int>();
    return request;
}

Result<ModelProcess> ModelProcess::start(const ModelSetup& request) {
    ECOPIPE_ASSIGN_OR_RETURN(WorkerProcess process, start_process());
    ECOPIPE_ASSIGN_OR_RETURN(WorkerMessage answer, set_up(process, request));
    ECOPIPE_ASSIGN_OR_RETURN(ModelLayout layout, layout_from(answer.header.at("layout")));
    ModelProcess model(request, answer.header.at("model_id").get<std::string>(), std::move(layout),
                       std::move(answer.bytes));
    if (!request.eval_data.empty()) model.process_.emplace(std::move(process));
    return model;
}

Result<Evaluation> ModelProcess::evaluate(const std::string& flat) {
    if (auto done = try_evaluate(flat)) return done;
    log_warn("the process that tests models has died and is started again");
    process_.reset();
    ECOPIPE_ASSIGN_OR_RETURN(WorkerProcess process, start_process());
    ECOPIPE_RETURN_IF_ERROR(set_up(process, request_));
    process_.emplace(std::move(process));
    return try_evaluate(flat);
}

Result<Evaluation> ModelProcess::try_evaluate(const std::string& flat) const {
    ECOPIPE_RETURN_IF_ERROR(process_->send(WorkerFrame::kTest, Json::object(), flat));
    ECOPIPE_ASSIGN_OR_RETURN(const WorkerMessage answer, process_->receive());
    return Evaluation{answer.header.at("loss").get<double>(),
                      answer.header.at("accuracy").get<double>()};
}

}  // namespace ecopipe
