// The simulator without processes and torch: a toy trainer stands in for the workers.
#include <unistd.h>

#include <numeric>

#include "core/files.h"
#include "core/random.h"
#include "fl_server/simulation/checkpoint.h"
#include "fl_server/simulation/population.h"
#include "fl_server/simulation/summary.h"
#include "fl_server/simulation/virtual_run.h"
#include "tests/fl_server/strategies/strategy_desk.h"

namespace ecopipe::test {
namespace {

std::vector<std::int64_t> labels_in_turn(int count) {
    std::vector<std::int64_t> labels;
    for (int i = 0; i < count; ++i) labels.push_back(i % 10);
    return labels;
}

TEST(Population, EverySampleGoesToOneClientUnderEverySplit) {
    for (const char* split : {"classes", "dirichlet", "iid"}) {
        for (const double skew : {0.0, 0.5}) {
            SimulationSettings settings;
            settings.split = split;
            settings.quantity_skew = skew;
            const auto population =
                Population::create(labels_in_turn(3000), 10, 30, 3, settings, 7);
            ASSERT_TRUE(population) << population.error().message;
            std::set<std::int64_t> seen;
            std::size_t samples = 0;
            for (const VirtualClient& client : population->clients()) {
                samples += client.samples.size();
                seen.insert(client.samples.begin(), client.samples.end());
                if (std::string(split) == "classes") {
                    EXPECT_EQ(std::count_if(client.label_counts.begin(), client.label_counts.end(),
                                            [](std::uint64_t n) { return n > 0; }),
                              2);
                }
            }
            EXPECT_EQ(samples, 3000U);
            EXPECT_EQ(seen.size(), 3000U);
        }
    }
}

TEST(Population, BandsHoldEquallyManyAndTiedLabelsLieInOne) {
    SimulationSettings settings;
    settings.labels = "tied";
    const auto population =
        Population::create(labels_in_turn(6000), 10, 300, 3, settings, 1).value();
    std::map<std::size_t, std::size_t> sizes;
    for (std::size_t u = 0; u < 300; ++u) {
        const VirtualClient& client = population.clients()[u];
        ++sizes[client.band];
        EXPECT_EQ(client.band, u % 10 / 2);
        EXPECT_GE(client.delay_s, settings.bands[client.band].low_s);
        EXPECT_LE(client.delay_s, settings.bands[client.band].high_s);
        EXPECT_DOUBLE_EQ(client.compute_s, 20 * 3 * 0.005);
    }
    for (const auto& [band, count] : sizes) EXPECT_EQ(count, 60U);
}

TEST(Population, DriftIsRepeatable) {
    SimulationSettings settings;
    settings.drift_share = 0.3;
    auto one = Population::create(labels_in_turn(600), 10, 60, 1, settings, 3).value();
    auto two = one;
    for (std::uint64_t n = 1; n <= 4; ++n) one.drift(n);
    two.restore(4);
    int changed = 0;
    const auto fresh = Population::create(labels_in_turn(600), 10, 60, 1, settings, 3).value();
    for (std::size_t u = 0; u < 60; ++u) {
        EXPECT_EQ(one.clients()[u].delay_s, two.clients()[u].delay_s);
        changed += one.clients()[u].delay_s != fresh.clients()[u].delay_s ? 1 : 0;
    }
    EXPECT_GT(changed, 10);
}

// Moves a model of one number by something that depends on the job alone.
class ToyPool : public TrainerPool {
  public:
    Result<void> train(std::uint64_t id, double, TrainJob job) override {
        const float from = floats_of(*job.base)[0];
        const double pull = Rng(job.key).uniform(-1, 1) + 0.1;
        jobs_[id] = {flat_floats({from + static_cast<float>(pull)}), pull};
        return {};
    }
    Result<void> test(std::uint64_t id, double, FlatModel model) override {
        tests_[id] = floats_of(*model)[0];
        return {};
    }
    Result<Trained> trained(std::uint64_t id) override {
        const auto job = jobs_.extract(id);
        return job.mapped();
    }
    Result<Tested> tested(std::uint64_t id) override { return Tested{tests_.at(id), 0}; }
    void forget() override {}

  private:
    std::map<std::uint64_t, Trained> jobs_;
    std::map<std::uint64_t, double> tests_;
};

// The lines of a run that is stopped, saved and restored every `every` events; 0: never.
std::vector<std::string> play(const std::string& name, int every) {
    SimulationSettings simulation;
    simulation.drift_every_s = 40;
    simulation.failure_share = 0.05;
    simulation.evaluate_every_s = 10;
    const ModelLayout layout = vector_layout(1);
    const auto with = settings(name, {{"clients_per_round", 10}, {"min_clients", 50}});
    const auto population =
        Population::create(labels_in_turn(1000), 10, 50, 2, simulation, 5).value();
    std::vector<std::string> lines;
    ToyPool pool;
    const auto make = [&](Strategy& strategy) {
        return std::make_unique<VirtualRun>(
            layout, flat_floats({0}), population, strategy, pool,
            VirtualRunOptions{300, 0, 5, name == "tifl", simulation},
            [&](const std::string& line) -> Result<void> {
                lines.push_back(line);
                return {};
            });
    };
    auto strategy = make_strategy(with).value();
    auto run = make(*strategy);
    for (int stops = 0; !run->finished(); ++stops) {
        int events = 0;
        const auto done = run->run([&] { return every > 0 && ++events > every; });
        EXPECT_TRUE(done) << done.error().message;
        if (!done || run->finished()) break;
        const std::string path =
            testing::TempDir() + "/simulation_test." + std::to_string(::getpid()) + ".checkpoint";
        EXPECT_TRUE(write_simulation_checkpoint(path, {run->save().value(), lines.size()}));
        const auto read = read_simulation_checkpoint(path);
        EXPECT_TRUE(read && *read);
        run.reset();
        strategy = make_strategy(with).value();
        run = make(*strategy);
        const auto restored = run->restore((*read)->snapshot);
        EXPECT_TRUE(restored) << restored.error().message;
        if (!restored || stops > 10000) break;
    }
    return lines;
}

TEST(VirtualRun, EveryStrategyRunsAndGoesOnFromACheckpointToTheSameBytes) {
    for (const StrategyKind& kind : strategy_kinds()) {
        const auto whole = play(kind.name, 0);
        EXPECT_GT(whole.size(), 35U) << kind.name;
        EXPECT_EQ(whole, play(kind.name, 23)) << kind.name;
    }
}

TEST(SimulationCheckpoint, ADamagedOneIsRefused) {
    const std::string path = testing::TempDir() + "/damaged.checkpoint";
    EXPECT_FALSE(read_simulation_checkpoint(path + ".none").value().has_value());
    SimulationCheckpoint checkpoint;
    checkpoint.snapshot.state = {{"a", 1}};
    checkpoint.snapshot.models = {flat_floats({1, 2})};
    ASSERT_TRUE(write_simulation_checkpoint(path, checkpoint));
    std::string text = read_file(path, 1 << 20).value();
    text.back() = static_cast<char>(text.back() + 1);
    ASSERT_TRUE(write_file_atomically(path, text));
    const auto read = read_simulation_checkpoint(path);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, ExitCode::kBadFile);
}

TEST(Summary, TheFirstOfThreeInARow) {
    const std::vector<EvaluationPoint> points = {{0, .1},  {20, .6},   {40, .5}, {60, .6},
                                                 {80, .7}, {100, .61}, {120, .4}};
    EXPECT_DOUBLE_EQ(time_to(points, .6).value_or(-1), 60);
    EXPECT_FALSE(time_to(points, .65).has_value());
    const auto summary = summary_json({{"fedavg", {{1, points}, {2, {{0, .2}, {20, .3}}}}}}, {60});
    EXPECT_DOUBLE_EQ(summary["fedavg"]["time_to_s"]["60"]["1"].get<double>(), 60);
    EXPECT_TRUE(summary["fedavg"]["time_to_s"]["60"]["2"].is_null());
    EXPECT_TRUE(summary["fedavg"]["time_to_s"]["60"]["mean"].is_null());
    EXPECT_DOUBLE_EQ(summary["fedavg"]["best_accuracy"]["mean"].get<double>(), 0.5);
    const auto read = evaluations_in(
        "{\"event\":\"group\"}\n{\"virtual_s\":20.0,\"event\":\"evaluation\",\"accuracy\":0.5}\n",
        "t");
    ASSERT_TRUE(read);
    ASSERT_EQ(read->size(), 1U);
    EXPECT_NE(accuracy_svg({{"a<b", {{1, points}}}}, "t").find("a&lt;b"), std::string::npos);
}

}  // namespace
}  // namespace ecopipe::test
