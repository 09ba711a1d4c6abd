#include "tests/support/small_training.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "orchestrator/train/checkpoint.h"
#include "stage_runtime/data/open_data.h"

namespace ecopipe::test {
namespace {

constexpr int kBatch = 4;

}  // namespace

std::ostream& operator<<(std::ostream& out, const Ways& ways) {
    return out << "validation " << ways.validation << ", early stop " << ways.early_stop
               << ", checkpoint every " << ways.checkpoint_every << ", " << ways.epochs
               << " epochs";
}

std::ostream& operator<<(std::ostream& out, const Left& left) {
    return out << left.steps << " steps, early " << left.stopped_early << ", test "
               << left.test_loss << ", checkpoint " << left.checkpoint << ", steps "
               << fmt::format("{}", left.recorded) << ", validation " << left.validation
               << ", evaluations " << fmt::format("{}", left.evaluations) << ", best of "
               << left.best.size();
}

SmallTraining::SmallTraining(Ways ways) : ways_(ways) {
    DataOptions wanted;
    wanted.validation_fraction = ways.validation ? 0.25 : 0;
    auto data = open_data("synthetic:1x1x1:5:16", wanted);
    EXPECT_TRUE(data) << data.error().message;
    data_ = std::move(*data);
}

Result<TrainResult> SmallTraining::live(TrainingEngine& engine, const TensorMap& initial) {
    TrainerOptions options;
    options.batch = kBatch;
    options.micro_batches = kMicroBatches;
    options.test_batch = 5;
    options.epochs = ways_.epochs;
    options.early_stop = ways_.validation ? ways_.early_stop : 0;
    options.checkpoints = true;
    options.checkpoint_every = ways_.checkpoint_every;
    options.checkpoint_flags = OrderedJson::object();
    ECOPIPE_ASSIGN_OR_RETURN(RunRecord record, RunRecord::create(directory_ / "run", true));
    RunView view([] { return std::int64_t{0}; });
    Progress progress(true, view);
    ECOPIPE_ASSIGN_OR_RETURN(
        const auto found,
        CheckpointStore(directory_ / "run/checkpoints").newest([](const auto&) {}));
    ECOPIPE_RETURN_IF_ERROR(found ? engine.load(found->state, found->step)
                                  : engine.load(initial, 0));
    Trainer trainer(engine, data_, options, record, progress);
    return trainer.run(found ? found->step : 0, found ? found->validation : ValidationHistory());
}

void SmallTraining::take_best(bool can) const {
    const std::string in_the_way = directory_ / "run/best.safetensors/in the way";
    if (!can)
        std::filesystem::create_directories(in_the_way);
    else if (std::filesystem::exists(in_the_way))
        std::filesystem::remove_all(directory_ / "run/best.safetensors");
}

Left SmallTraining::left(const TrainResult& result) const {
    Left left;
    left.steps = result.steps;
    left.stopped_early = result.stopped_early;
    for (const NamedTensor& entry : result.weights)
        left.weights.append(reinterpret_cast<const char*>(entry.tensor.data()),
                            entry.tensor.bytes());
    left.validation = result.validation.json().dump();
    left.test_loss = result.test.loss();
    if (const std::string best = directory_ / "run/best.safetensors"; exists(best))
        left.best = read(best);
    const auto newest = CheckpointStore(directory_ / "run/checkpoints").newest([](const auto&) {});
    EXPECT_TRUE(newest && *newest);
    if (newest && *newest) left.checkpoint = (*newest)->step;
    std::istringstream lines(read(directory_ / "run/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
        const Json json = Json::parse(line);
        if (json.contains("step"))
            left.recorded.push_back(fmt::format("{} {}", json["step"].dump(), json["loss"].dump()));
        else
            left.evaluations.push_back(fmt::format("{} {} {}", json["split"].dump(),
                                                   json["epoch"].dump(), json["loss"].dump()));
    }
    return left;
}

}  // namespace ecopipe::test
