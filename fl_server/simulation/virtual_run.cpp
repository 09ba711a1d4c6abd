#include "fl_server/simulation/virtual_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/random.h"
#include "fl_server/numbers/samples_cap.h"

namespace ecopipe {
namespace {

enum RunDraw : std::uint64_t { kTaskKey = 101, kTaskFails };
// Ids of tests are apart from those of trainings.
constexpr std::uint64_t kTestIds = 1ULL << 62;
// Lines that may wait for an evaluation before it is waited for.
constexpr std::size_t kLinesMax = 4096;

// Milliseconds are enough for people, and print the same everywhere.
double rounded(double seconds) { return std::round(seconds * 1000) / 1000; }

}  // namespace

VirtualRun::VirtualRun(const ModelLayout& layout, FlatModel start, Population population,
                       Strategy& strategy, TrainerPool& pool, VirtualRunOptions options,
                       LineSink sink)
    : layout_(layout),
      population_(std::move(population)),
      strategy_(strategy),
      pool_(pool),
      options_(std::move(options)),
      sink_(std::move(sink)),
      bases_{{0, start}} {
    make_aggregator({0, std::move(start), {}, nullptr});
    std::vector<std::uint64_t> told;
    for (std::size_t u = 0; u < population_.clients().size(); ++u) {
        client_index_[population_.clients()[u].name] = u;
        told.push_back(population_.clients()[u].samples.size());
    }
    samples_most_ = samples_cap(std::move(told), options_.weight_max);
}

void VirtualRun::make_aggregator(AggregatorState state) {
    aggregator_.emplace(
        layout_, std::move(state),
        [this](std::uint64_t version) -> Result<BlockSourcePtr> {
            ECOPIPE_ASSIGN_OR_RETURN(FlatModel bytes, base(version));
            return memory_source(std::move(bytes));
        },
        AggregatorOptions{options_.norm_clip, 1, true});
}

std::uint64_t VirtualRun::version() const { return aggregator_->state().version; }

Result<FlatModel> VirtualRun::base(std::uint64_t version) const {
    const auto found = bases_.find(version);
    if (found == bases_.end())
        return fail(ExitCode::kRunFailed, fmt::format("version {} is not kept", version));
    return found->second;
}

void VirtualRun::schedule(double at_s, Kind kind, std::uint64_t task) {
    events_.push({at_s, order_++, kind, task});
}

// What ends beyond the last second is not waited for, and so not trained.
Result<void> VirtualRun::start_training(std::uint64_t id, const Task& task) {
    if (task.ends_s > options_.virtual_s) return {};
    ECOPIPE_ASSIGN_OR_RETURN(FlatModel bytes, base(task.base_version));
    const VirtualClient& client = population_.clients()[task.client];
    return pool_.train(
        id, task.ends_s,
        {client.samples,
         keyed_seed(options_.seed, {kTaskKey, task.client, task.base_version, task.sequence}),
         std::move(bytes)});
}

// Decisions may hold commits, whose Committed is the next event.
Result<void> VirtualRun::tell(const StrategyEvent& event) {
    told_.push_back(event);
    while (!told_.empty()) {
        const StrategyEvent next = std::move(told_.front());
        told_.pop_front();
        for (const StrategyDecision& decision : strategy_.on(now_s_, next))
            ECOPIPE_RETURN_IF_ERROR(
                std::visit([this](const auto& one) { return execute(one); }, decision));
    }
    return {};
}

Result<void> VirtualRun::execute(const strategy_decision::Assign& decision) {
    const auto client = client_index_.find(decision.cluster);
    ECOPIPE_CHECK(client != client_index_.end());
    const double latency_s = population_.clients()[client->second].latency_s();
    const Task task{client->second, version(),          ++sequences_[decision.cluster],
                    latency_s,      now_s_ + latency_s, decision.group};
    const std::uint64_t id = tasks_++;
    ECOPIPE_RETURN_IF_ERROR(start_training(id, task));
    running_[id] = task;
    schedule(task.ends_s, Kind::kTaskEnds, id);
    return {};
}

Result<void> VirtualRun::execute(const Fold& decision) {
    const auto held = held_.find({decision.cluster, decision.sequence});
    ECOPIPE_CHECK(held != held_.end());
    folds_.push_back(decision);
    return aggregator_->fold(decision, held->second.update);
}

Result<void> VirtualRun::execute(const strategy_decision::Drop& decision) {
    held_.erase({decision.cluster, decision.sequence});
    ++dropped_[decision.reason.substr(0, decision.reason.find(':'))];
    return {};
}

Result<void> VirtualRun::execute(const strategy_decision::Group& decision) {
    lines_.push_back({{{"virtual_s", rounded(now_s_)},
                       {"event", "group"},
                       {"cluster", decision.cluster},
                       {"from", decision.from},
                       {"to", decision.to}},
                      {}});
    return {};
}

Result<void> VirtualRun::execute(const strategy_decision::Commit& decision) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto committed, aggregator_->commit(decision.recipe));
    const FlatModel global = aggregator_->state().global;
    bases_[committed.version] = global;
    std::uint64_t samples = 0;
    std::vector<Fold> left;
    for (const Fold& fold : folds_) {
        const auto closes = [&](const Recipe::Close& close) { return close.slot == fold.slot; };
        if (std::none_of(decision.recipe.close.begin(), decision.recipe.close.end(), closes)) {
            left.push_back(fold);
            continue;
        }
        const auto held = held_.find({fold.cluster, fold.sequence});
        samples += held->second.samples;
        held_.erase(held);
    }
    folds_ = std::move(left);
    strategy_event::Committed event{committed.version, -1};
    if (options_.test_commits) {
        const std::uint64_t id = kTestIds + tests_++;
        ECOPIPE_RETURN_IF_ERROR(pool_.test(id, now_s_, aggregator_->state().served()));
        ECOPIPE_ASSIGN_OR_RETURN(const Tested tested, pool_.tested(id));
        event.accuracy = tested.accuracy;
    }
    OrderedJson line = {{"round", committed.version},
                        {"virtual_s", rounded(now_s_)},
                        {"strategy", strategy_.name()},
                        {"group", decision.group},
                        {"clusters", decision.clusters},
                        {"samples", samples},
                        {"bytes_in", decision.clusters.size() * layout_.bytes()},
                        {"sha256", committed.sha256}};
    lines_.push_back({std::move(line), {}});
    told_.push_front(event);
    forget_old_bases();
    return {};
}

Result<void> VirtualRun::execute(const strategy_decision::Wake& decision) {
    schedule(std::max(now_s_, decision.at_s), Kind::kWake);
    return {};
}

void VirtualRun::forget_old_bases() {
    std::uint64_t oldest = version();
    for (const auto& [id, task] : running_) oldest = std::min(oldest, task.base_version);
    for (const auto& [key, held] : held_) oldest = std::min(oldest, held.update.base_version);
    bases_.erase(bases_.begin(), bases_.lower_bound(oldest));
}

Result<void> VirtualRun::begin() {
    begun_ = true;
    schedule(0, Kind::kEvaluate);
    if (options_.simulation.drift_every_s > 0)
        schedule(options_.simulation.drift_every_s, Kind::kDrift);
    for (std::size_t u = 0; u < population_.clients().size(); ++u)
        ECOPIPE_RETURN_IF_ERROR(tell(strategy_event::Joined{population_.facts(u)}));
    return {};
}

Result<void> VirtualRun::end_task(std::uint64_t id) {
    const Task task = running_.at(id);
    running_.erase(id);
    ClientFacts facts = population_.facts(task.client);
    facts.latency_s = task.latency_s;
    facts.samples = std::min(facts.samples, samples_most_);
    auto trained = pool_.trained(id);
    Rng rng(keyed_seed(options_.seed, {kTaskFails, id}));
    if (rng.uniform() < options_.simulation.failure_share)
        return tell(strategy_event::Failed{facts.cluster, "the virtual cluster failed"});
    if (!trained) return tl::unexpected<Error>(trained.error());
    ECOPIPE_ASSIGN_OR_RETURN(FlatModel from, base(task.base_version));
    Held held{{memory_source(trained->weights), task.base_version, {}},
              trained->weights,
              facts.samples,
              trained->loss};
    auto measure = measure_update(layout_, *held.update.bytes, memory_source(std::move(from)));
    if (!measure) {
        ++dropped_["rejected"];
        return tell(strategy_event::Failed{facts.cluster, measure.error().message});
    }
    held.update.measure = *measure;
    held_[{facts.cluster, task.sequence}] = std::move(held);
    return tell(strategy_event::Admitted{facts, task.sequence, task.base_version,
                                         version() - task.base_version});
}

Result<void> VirtualRun::evaluate() {
    const std::uint64_t id = kTestIds + tests_++;
    ECOPIPE_RETURN_IF_ERROR(pool_.test(id, now_s_, aggregator_->state().served()));
    lines_.push_back({{{"virtual_s", rounded(now_s_)},
                       {"event", "evaluation"},
                       {"round", version()},
                       {"tasks", tasks_}},
                      id});
    schedule(now_s_ + options_.simulation.evaluate_every_s, Kind::kEvaluate);
    return write_lines(false);
}

Result<void> VirtualRun::write_lines(bool all) {
    while (!lines_.empty() && (all || !lines_.front().test || lines_.size() > kLinesMax)) {
        Line& line = lines_.front();
        if (line.test) {
            ECOPIPE_ASSIGN_OR_RETURN(const Tested tested, pool_.tested(*line.test));
            line.json["accuracy"] = tested.accuracy;
            line.json["loss"] = tested.loss;
            evaluations_.push_back({line.json["virtual_s"].get<double>(), tested.accuracy});
        }
        ECOPIPE_RETURN_IF_ERROR(sink_(line.json.dump()));
        lines_.pop_front();
    }
    return {};
}

Result<void> VirtualRun::handle(const Event& event) {
    now_s_ = event.at_s;
    switch (event.kind) {
        case Kind::kTaskEnds:
            return end_task(event.task);
        case Kind::kWake:
            return tell(strategy_event::Tick{});
        case Kind::kEvaluate:
            return evaluate();
        case Kind::kDrift:
            population_.drift(++drifts_);
            schedule(now_s_ + options_.simulation.drift_every_s, Kind::kDrift);
            return {};
    }
    return {};
}

Result<void> VirtualRun::run(const std::function<bool()>& stop) {
    if (!begun_) ECOPIPE_RETURN_IF_ERROR(begin());
    while (!events_.empty() && events_.top().at_s <= options_.virtual_s) {
        if (stop()) return {};
        const Event event = events_.top();
        events_.pop();
        ECOPIPE_RETURN_IF_ERROR(handle(event));
    }
    finished_ = true;
    return write_lines(true);
}

Result<VirtualRun::Snapshot> VirtualRun::save() {
    ECOPIPE_RETURN_IF_ERROR(write_lines(true));
    Snapshot snapshot;
    std::map<const std::string*, std::size_t> numbers;
    const auto number = [&](const FlatModel& model) -> Json {
        if (model == nullptr) return nullptr;
        const auto [at, fresh] = numbers.try_emplace(model.get(), snapshot.models.size());
        if (fresh) snapshot.models.push_back(model);
        return at->second;
    };
    const AggregatorState& aggregate = aggregator_->state();
    Json& state = snapshot.state;
    state = {{"now_s", now_s_},
             {"order", order_},
             {"tasks", tasks_},
             {"tests", tests_},
             {"drifts", drifts_},
             {"version", aggregate.version},
             {"strategy", strategy_.save()},
             {"sequences", sequences_},
             {"dropped", dropped_}};
    state["global"] = number(aggregate.global);
    state["moments"] = number(aggregate.moments);
    for (const auto& [name, model] : aggregate.stored) state["stored"][name] = number(model);
    for (const auto& [version, model] : bases_) state["bases"].push_back({version, number(model)});
    for (auto events = events_; !events.empty(); events.pop()) {
        const Event& event = events.top();
        state["events"].push_back(
            {event.at_s, event.order, static_cast<int>(event.kind), event.task});
    }
    state["running"] = Json::array();
    for (const auto& [id, task] : running_)
        state["running"].push_back({id, task.client, task.base_version, task.sequence,
                                    task.latency_s, task.ends_s, task.group});
    state["held"] = Json::array();
    for (const auto& [key, held] : held_)
        state["held"].push_back({key.first, key.second, held.update.base_version, held.samples,
                                 held.loss, number(held.weights)});
    state["folds"] = Json::array();
    for (const Fold& fold : folds_)
        state["folds"].push_back({fold.cluster, fold.sequence, fold.slot, fold.weight});
    state["evaluations"] = Json::array();
    for (const EvaluationPoint& point : evaluations_)
        state["evaluations"].push_back({point.virtual_s, point.accuracy});
    return snapshot;
}

Result<void> VirtualRun::restore(const Snapshot& snapshot) {
    const Json& state = snapshot.state;
    const auto model = [&](const Json& number) -> FlatModel {
        return number.is_null() ? nullptr : snapshot.models.at(number.get<std::size_t>());
    };
    begun_ = true;
    now_s_ = state.at("now_s").get<double>();
    order_ = state.at("order").get<std::uint64_t>();
    tasks_ = state.at("tasks").get<std::uint64_t>();
    tests_ = state.at("tests").get<std::uint64_t>();
    drifts_ = state.at("drifts").get<std::uint64_t>();
    sequences_ = state.at("sequences").get<std::map<std::string, std::uint64_t>>();
    dropped_ = state.at("dropped").get<std::map<std::string, std::uint64_t>>();
    population_.restore(drifts_);
    ECOPIPE_RETURN_IF_ERROR(strategy_.restore(state.at("strategy")));
    AggregatorState aggregate;
    aggregate.version = state.at("version").get<std::uint64_t>();
    aggregate.global = model(state.at("global"));
    aggregate.moments = model(state.at("moments"));
    if (state.contains("stored"))
        for (const auto& [name, number] : state.at("stored").items())
            aggregate.stored[name] = model(number);
    bases_.clear();
    for (const Json& entry : state.at("bases"))
        bases_[entry.at(0).get<std::uint64_t>()] = model(entry.at(1));
    make_aggregator(std::move(aggregate));
    for (const Json& event : state.at("events"))
        events_.push({event.at(0).get<double>(), event.at(1).get<std::uint64_t>(),
                      static_cast<Kind>(event.at(2).get<int>()), event.at(3).get<std::uint64_t>()});
    for (const Json& one : state.at("running")) {
        const Task task{one.at(1).get<std::size_t>(),   one.at(2).get<std::uint64_t>(),
                        one.at(3).get<std::uint64_t>(), one.at(4).get<double>(),
                        one.at(5).get<double>(),        one.at(6).get<std::uint32_t>()};
        const auto id = one.at(0).get<std::uint64_t>();
        running_[id] = task;
        ECOPIPE_RETURN_IF_ERROR(start_training(id, task));
    }
    for (const Json& one : state.at("held")) {
        const auto version = one.at(2).get<std::uint64_t>();
        const FlatModel weights = model(one.at(5));
        Held held{{memory_source(weights), version, {}},
                  weights,
                  one.at(3).get<std::uint64_t>(),
                  one.at(4).get<double>()};
        ECOPIPE_ASSIGN_OR_RETURN(FlatModel from, base(version));
        ECOPIPE_ASSIGN_OR_RETURN(
            held.update.measure,
            measure_update(layout_, *held.update.bytes, memory_source(std::move(from))));
        held_[{one.at(0).get<std::string>(), one.at(1).get<std::uint64_t>()}] = std::move(held);
    }
    for (const Json& one : state.at("folds"))
        ECOPIPE_RETURN_IF_ERROR(
            execute(Fold{one.at(0).get<std::string>(), one.at(1).get<std::uint64_t>(),
                         one.at(2).get<SlotId>(), one.at(3).get<double>()}));
    for (const Json& point : state.at("evaluations"))
        evaluations_.push_back({point.at(0).get<double>(), point.at(1).get<double>()});
    return {};
}

}  // namespace ecopipe
