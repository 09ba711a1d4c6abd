#include "fl_server/simulation/process_pool.h"

#include <fmt/format.h>
#include <poll.h>

#include <cerrno>
#include <cstring>

#include "core/check.h"

namespace ecopipe {
namespace {

// A job takes seconds; one that takes this long hangs.
constexpr int kJobTimeoutS = 3600;

}  // namespace

Result<std::unique_ptr<ProcessPool>> ProcessPool::start(const std::string& program,
                                                        std::size_t workers) {
    std::unique_ptr<ProcessPool> pool(new ProcessPool());
    for (std::size_t i = 0; i < workers; ++i) {
        ECOPIPE_ASSIGN_OR_RETURN(WorkerProcess process,
                                 WorkerProcess::start(program, "worker", kJobTimeoutS));
        pool->workers_.push_back({std::move(process)});
    }
    return pool;
}

Result<void> ProcessPool::set_up(const Json& setup) {
    forget();
    while (!unheard_.empty()) ECOPIPE_RETURN_IF_ERROR(collect(true));
    for (const Worker& worker : workers_) {
        ECOPIPE_RETURN_IF_ERROR(worker.process.send(WorkerFrame::kSetup, setup, {}));
        ECOPIPE_ASSIGN_OR_RETURN(WorkerMessage answer, worker.process.receive());
        ECOPIPE_RETURN_IF_ERROR(success_of(std::move(answer)));
    }
    return {};
}

void ProcessPool::forget() {
    jobs_.clear();
    waiting_.clear();
    results_.clear();
    for (const Worker& worker : workers_)
        if (worker.busy) unheard_.insert(worker.job);
}

Result<void> ProcessPool::add(std::uint64_t id, double urgency, Job job) {
    jobs_[id] = std::move(job);
    waiting_.insert({urgency, id});
    ECOPIPE_RETURN_IF_ERROR(collect(false));
    return hand_out();
}

Result<void> ProcessPool::train(std::uint64_t id, double urgency, TrainJob job) {
    return add(id, urgency,
               {WorkerFrame::kTrain, {{"samples", job.samples}, {"key", job.key}}, job.base});
}

Result<void> ProcessPool::test(std::uint64_t id, double urgency, FlatModel model) {
    return add(id, urgency, {WorkerFrame::kTest, Json::object(), std::move(model)});
}

Result<void> ProcessPool::hand_out() {
    for (Worker& worker : workers_) {
        if (worker.busy || waiting_.empty()) continue;
        const std::uint64_t id = waiting_.begin()->second;
        waiting_.erase(waiting_.begin());
        const auto job = jobs_.extract(id);
        worker.busy = true;
        worker.job = id;
        ECOPIPE_RETURN_IF_ERROR(
            worker.process.send(job.mapped().kind, job.mapped().header, *job.mapped().model));
    }
    return {};
}

Result<void> ProcessPool::collect(bool wait) {
    std::vector<pollfd> polled;
    for (const Worker& worker : workers_)
        polled.push_back(
            {worker.process.descriptor(), static_cast<short>(worker.busy ? POLLIN : 0), 0});
    const int ready = ::poll(polled.data(), polled.size(), wait ? 1000 * kJobTimeoutS : 0);
    if (ready < 0 && errno == EINTR) return {};
    if (ready < 0 || (wait && ready == 0))
        return fail(ExitCode::kRunFailed, "no worker process answers");
    for (std::size_t i = 0; i < workers_.size(); ++i) {
        if (polled[i].revents == 0) continue;
        Worker& worker = workers_[i];
        ECOPIPE_ASSIGN_OR_RETURN(WorkerMessage message, worker.process.receive());
        worker.busy = false;
        if (unheard_.erase(worker.job) == 0) results_[worker.job] = std::move(message);
    }
    return hand_out();
}

Result<WorkerMessage> ProcessPool::result_of(std::uint64_t id) {
    // Whoever is waited for goes first.
    while (!results_.contains(id)) ECOPIPE_RETURN_IF_ERROR(collect(true));
    auto found = results_.extract(id);
    return success_of(std::move(found.mapped()));
}

Result<Trained> ProcessPool::trained(std::uint64_t id) {
    ECOPIPE_ASSIGN_OR_RETURN(WorkerMessage message, result_of(id));
    ECOPIPE_CHECK(message.kind == WorkerFrame::kTrained);
    return Trained{std::make_shared<const std::string>(std::move(message.bytes)),
                   message.header.at("loss").get<double>()};
}

Result<Tested> ProcessPool::tested(std::uint64_t id) {
    ECOPIPE_ASSIGN_OR_RETURN(const WorkerMessage message, result_of(id));
    ECOPIPE_CHECK(message.kind == WorkerFrame::kTested);
    return Tested{message.header.at("accuracy").get<double>(),
                  message.header.at("loss").get<double>()};
}

}  // namespace ecopipe
