#include "fl_server/workers/model_process.h"

#include <filesystem>

#include "core/log.h"
#include "fl_server/strategies/decision_json.h"

namespace ecopipe {
namespace {

Result<WorkerProcess> start_process(std::uint64_t patience_s) {
    std::error_code error;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
    return WorkerProcess::start(program.parent_path() / "ecopipe-fl-model", "worker", patience_s);
}

Result<WorkerMessage> set_up(const WorkerProcess& process, const ModelSetup& request) {
    ECOPIPE_RETURN_IF_ERROR(process.send(WorkerFrame::kSetup, to_json(request), {}));
    ECOPIPE_ASSIGN_OR_RETURN(WorkerMessage answer, process.receive());
    return success_of(std::move(answer));
}

}  // namespace

Json to_json(const ModelSetup& request) {
    return {{"model", request.model},
            {"input_shape", request.input_shape},
            {"num_classes", request.num_classes},
            {"eval_data", request.eval_data},
            {"init", request.init},
            {"seed", request.seed},
            {"threads", request.threads},
            {"log_level", request.log_level},
            {"classes", request.classes}};
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
    request.log_level = header.at("log_level").get<std::string>();
    request.classes = header.at("classes").get<std::vector<std::string>>();
    return request;
}

Result<ModelProcess> ModelProcess::start(const ModelSetup& request, std::uint64_t patience_s) {
    ECOPIPE_ASSIGN_OR_RETURN(WorkerProcess process, start_process(patience_s));
    ECOPIPE_ASSIGN_OR_RETURN(WorkerMessage answer, set_up(process, request));
    ECOPIPE_ASSIGN_OR_RETURN(ModelLayout layout, layout_from(answer.header.at("layout")));
    ModelProcess model(
        request, patience_s, answer.header.at("model_id").get<std::string>(), std::move(layout),
        answer.header.at("classes").get<std::vector<std::string>>(), std::move(answer.bytes));
    if (!request.eval_data.empty()) model.process_.emplace(std::move(process));
    return model;
}

Result<Evaluation> ModelProcess::evaluate(const std::string& flat) {
    auto answer = ask(flat);
    if (!answer) {
        log_warn("{}: the process that tests models is started again", answer.error().message);
        process_.reset();
        ECOPIPE_ASSIGN_OR_RETURN(WorkerProcess process, start_process(patience_s_));
        ECOPIPE_RETURN_IF_ERROR(set_up(process, request_));
        process_.emplace(std::move(process));
        answer = ask(flat);
        if (!answer) return tl::unexpected(answer.error());
    }
    ECOPIPE_ASSIGN_OR_RETURN(const WorkerMessage tested, success_of(std::move(*answer)));
    return Evaluation{tested.header.at("loss").get<double>(),
                      tested.header.at("accuracy").get<double>()};
}

Result<WorkerMessage> ModelProcess::ask(const std::string& flat) const {
    ECOPIPE_RETURN_IF_ERROR(process_->send(WorkerFrame::kTest, Json::object(), flat));
    return process_->receive();
}

}  // namespace ecopipe
