#pragma once
// A training of a few steps, in one or more lives, and all that it leaves but for times: what must
// be the same whatever fails on the way.

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "orchestrator/train/trainer.h"
#include "tests/support/process.h"

namespace ecopipe::test {

struct Ways {
    bool validation = true;
    std::uint64_t early_stop = 2;
    std::uint64_t checkpoint_every = 1;  // steps; 0: each epoch
    std::uint64_t epochs = 6;
    auto operator<=>(const Ways&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Ways& ways);

struct Left {
    std::uint64_t steps = 0;
    bool stopped_early = false;
    std::string weights, best, validation;
    double test_loss = 0;
    std::uint64_t checkpoint = 0;
    std::vector<std::string> recorded;     // "step loss", as they stand in metrics.jsonl
    std::vector<std::string> evaluations;  // "split epoch loss", as they stand there
    bool operator==(const Left&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Left& left);

class SmallTraining {
  public:
    static constexpr int kMicroBatches = 4;
    // 12 samples for training, with validation, else 16, in batches of 4.
    explicit SmallTraining(Ways ways);

    // One life of the portal: goes on from the newest checkpoint, else from `initial`. Errors: what
    // ended it.
    [[nodiscard]] Result<TrainResult> live(TrainingEngine& engine, const TensorMap& initial);
    // Whether best.safetensors can be written; a full disk comes and goes like that.
    void take_best(bool can) const;
    // What the life that came to the end has left.
    [[nodiscard]] Left left(const TrainResult& result) const;

  private:
    Ways ways_;
    TemporaryDirectory directory_{TemporaryDirectory::InMemory{}};
    DataSplits data_;
};

}  // namespace ecopipe::test
