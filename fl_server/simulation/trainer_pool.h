#pragma once
// Who trains the virtual clusters' tasks. A result is a pure function of the job: neither the
// number of workers nor their pace is part of it.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/result.h"

namespace ecopipe {

using FlatModel = std::shared_ptr<const std::string>;  // a model's flat bytes

struct TrainJob {
    std::vector<std::int64_t> samples;
    std::uint64_t key = 0;  // of every draw: the order of samples, dropout
    FlatModel base;
};

struct Trained {
    FlatModel weights;
    double loss = 0;  // of the last step
};

struct Tested {
    double accuracy = 0;
    double loss = 0;
};

class TrainerPool {
  public:
    virtual ~TrainerPool() = default;
    // Starts as soon as somebody is free, those of the least `urgency` first. Errors: kRunFailed
    // when a worker has died.
    [[nodiscard]] virtual Result<void> train(std::uint64_t id, double urgency, TrainJob job) = 0;
    [[nodiscard]] virtual Result<void> test(std::uint64_t id, double urgency, FlatModel model) = 0;
    // Wait for one result; each is to be had once. Errors: kRunFailed when the training failed (a
    // loss that is no finite number) or a worker died; what died is said.
    [[nodiscard]] virtual Result<Trained> trained(std::uint64_t id) = 0;
    [[nodiscard]] virtual Result<Tested> tested(std::uint64_t id) = 0;
    // Forgets every job; what runs runs to its end unheard.
    virtual void forget() = 0;
};

}  // namespace ecopipe
