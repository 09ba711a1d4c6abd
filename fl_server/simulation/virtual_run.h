#pragma once
// One strategy's federation in virtual time: the same Strategy and Aggregator as the server,
// virtual clusters that truly train, and a clock that jumps from event to event. The outcome
// depends on the settings and the seed alone.
//
// A task starts from the model of its virtual start and is trained while virtual time stands
// wherever it does; its result is waited for when its virtual end comes next. So all workers stay
// busy under asynchronous strategies too.

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <queue>

#include "core/strict_json.h"
#include "fl_server/numbers/aggregator.h"
#include "fl_server/simulation/population.h"
#include "fl_server/simulation/trainer_pool.h"
#include "fl_server/strategies/strategy.h"

namespace ecopipe {

struct VirtualRunOptions {
    double virtual_s = 0;
    double norm_clip = 0;
    std::uint64_t seed = 0;
    bool test_commits = false;  // every commit is tested at once: the strategy asks for accuracies
    SimulationSettings simulation;
    double weight_max = 0;  // as ServerLimits has it
};

struct EvaluationPoint {
    double virtual_s = 0;
    double accuracy = 0;
};

// Appends lines of the run's file; reads nothing.
using LineSink = std::function<Result<void>(const std::string& line)>;

class VirtualRun {
  public:
    VirtualRun(const ModelLayout& layout, FlatModel start, Population population,
               Strategy& strategy, TrainerPool& pool, VirtualRunOptions options, LineSink sink);
    // To the end, or until `stop` says so between two events; then `finished` is false and `save`
    // holds what `restore` needs.
    [[nodiscard]] Result<void> run(const std::function<bool()>& stop);
    [[nodiscard]] bool finished() const { return finished_; }

    // Everything, as one JSON and the models that it names by number.
    struct Snapshot {
        Json state;
        std::vector<FlatModel> models;
    };
    [[nodiscard]] Result<Snapshot> save();
    [[nodiscard]] Result<void> restore(const Snapshot& snapshot);

    [[nodiscard]] const std::vector<EvaluationPoint>& evaluations() const { return evaluations_; }
    [[nodiscard]] double now_s() const { return now_s_; }
    [[nodiscard]] std::uint64_t version() const;
    [[nodiscard]] std::uint64_t tasks() const { return tasks_; }
    [[nodiscard]] const std::map<std::string, std::uint64_t>& dropped() const { return dropped_; }

  private:
    enum class Kind : std::uint8_t { kTaskEnds, kWake, kEvaluate, kDrift };
    struct Event {
        double at_s = 0;
        std::uint64_t order = 0;  // of creation: breaks ties
        Kind kind = Kind::kWake;
        std::uint64_t task = 0;
        bool operator>(const Event& other) const {
            return at_s != other.at_s ? at_s > other.at_s : order > other.order;
        }
    };
    struct Task {
        std::size_t client = 0;
        std::uint64_t base_version = 0;
        std::uint64_t sequence = 0;
        double latency_s = 0;
        double ends_s = 0;
        std::uint32_t group = 0;
    };
    struct Held {  // an admitted update that is not yet in a committed version
        CheckedUpdate update;
        FlatModel weights;
        std::uint64_t samples = 0;
        double loss = 0;
    };
    using UpdateKey = std::pair<std::string, std::uint64_t>;

    void make_aggregator(AggregatorState state);
    void schedule(double at_s, Kind kind, std::uint64_t task = 0);
    [[nodiscard]] Result<void> start_training(std::uint64_t id, const Task& task);
    [[nodiscard]] Result<void> tell(const StrategyEvent& event);
    [[nodiscard]] Result<void> execute(const strategy_decision::Assign& decision);
    [[nodiscard]] Result<void> execute(const Fold& decision);
    [[nodiscard]] Result<void> execute(const strategy_decision::Drop& decision);
    [[nodiscard]] Result<void> execute(const strategy_decision::Group& decision);
    [[nodiscard]] Result<void> execute(const strategy_decision::Commit& decision);
    [[nodiscard]] Result<void> execute(const strategy_decision::Wake& decision);
    [[nodiscard]] Result<void> begin();
    [[nodiscard]] Result<void> handle(const Event& event);
    [[nodiscard]] Result<void> end_task(std::uint64_t id);
    [[nodiscard]] Result<void> evaluate();
    [[nodiscard]] Result<void> write_lines(bool all);
    [[nodiscard]] Result<FlatModel> base(std::uint64_t version) const;
    void forget_old_bases();

    const ModelLayout& layout_;
    Population population_;
    Strategy& strategy_;
    TrainerPool& pool_;
    VirtualRunOptions options_;
    LineSink sink_;
    std::map<std::string, std::size_t> client_index_;
    std::uint64_t samples_most_;  // that an update counts for
    std::map<std::uint64_t, FlatModel> bases_;
    std::optional<Aggregator> aggregator_;
    std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
    std::uint64_t order_ = 0;
    double now_s_ = 0;
    bool begun_ = false;
    bool finished_ = false;
    std::uint64_t tasks_ = 0;
    std::uint64_t tests_ = 0;
    std::uint64_t drifts_ = 0;
    std::map<std::uint64_t, Task> running_;
    std::map<std::string, std::uint64_t> sequences_;
    std::map<UpdateKey, Held> held_;
    std::vector<Fold> folds_;  // into slots that are open
    std::deque<StrategyEvent> told_;
    // Lines in order; an evaluation's waits for its result.
    struct Line {
        OrderedJson json;
        std::optional<std::uint64_t> test;
    };
    std::deque<Line> lines_;
    std::vector<EvaluationPoint> evaluations_;
    std::map<std::string, std::uint64_t> dropped_;
};

}  // namespace ecopipe
