#pragma once
// Worker processes that train and test: the same program, started again with the command `worker`
// and one end of a socket pair as standard input. One job at a time each. A worker that dies ends
// the run with an error; one whose parent died ends itself.

#include <map>
#include <set>
#include <vector>

#include "fl_server/simulation/trainer_pool.h"
#include "fl_server/workers/worker_process.h"

namespace ecopipe {

class ProcessPool : public TrainerPool {
  public:
    // `program`: the path of this program.
    [[nodiscard]] static Result<std::unique_ptr<ProcessPool>> start(const std::string& program,
                                                                    std::size_t workers);

    // What every later job is trained with; forgets earlier jobs. See run_worker for its keys.
    [[nodiscard]] Result<void> set_up(const Json& setup);

    Result<void> train(std::uint64_t id, double urgency, TrainJob job) override;
    Result<void> test(std::uint64_t id, double urgency, FlatModel model) override;
    Result<Trained> trained(std::uint64_t id) override;
    Result<Tested> tested(std::uint64_t id) override;
    void forget() override;

  private:
    struct Worker {
        WorkerProcess process;
        bool busy = false;
        std::uint64_t job = 0;
    };
    struct Job {
        WorkerFrame kind = WorkerFrame::kTrain;
        Json header;
        FlatModel model;
    };

    ProcessPool() = default;
    [[nodiscard]] Result<void> add(std::uint64_t id, double urgency, Job job);
    [[nodiscard]] Result<void> hand_out();
    // Takes what workers have finished; waits for at least one when `wait`.
    [[nodiscard]] Result<void> collect(bool wait);
    [[nodiscard]] Result<WorkerMessage> result_of(std::uint64_t id);

    std::vector<Worker> workers_;
    std::map<std::uint64_t, Job> jobs_;                   // not yet handed out
    std::set<std::pair<double, std::uint64_t>> waiting_;  // by urgency
    std::map<std::uint64_t, WorkerMessage> results_;
    std::set<std::uint64_t> unheard_;  // at work, and forgotten
};

}  // namespace ecopipe
