#pragma once
// What the training tests share: models from Python, plans by hand, runs to compare.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/process.h"

namespace ecopipe::test {

inline constexpr const char* kPython =
    "/usr/bin/python3";  // the Debian one, which python3-torch belongs to

using Flags = std::vector<std::string>;
inline Flags operator+(Flags a, const Flags& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

struct ModelCase {
    std::string model;  // zoo name or path
    std::string id;     // as plans name it
    int layers = 0;
};

// A plan by hand: `stages` stages of nearly equal layer counts.
[[nodiscard]] std::string hand_plan(const ModelCase& model, int stages, const std::string& schedule,
                                    int batch, int micro_batches, bool recompute = false);
// With each stage's first layer.
[[nodiscard]] std::string hand_plan(const ModelCase& model, const std::vector<int>& first_layers,
                                    const std::string& schedule, int batch, int micro_batches,
                                    bool recompute = false);

// The plan with part of each stage recomputed: of every three layers the second and third, by turns
// as one segment and as two; a stage of one layer wholly.
[[nodiscard]] std::string with_segments(const std::string& plan);

// Runs ecopipe-train with --quiet and expects success.
void expect_trains(Flags flags);

// Kills the local stage of this name once the run in `out` has recorded eight lines.
void kill_when_under_way(Process& train, const std::string& out, const std::string& device);

class Training : public testing::Test {
  protected:
    // Trains --single into `name` and returns the model file's bytes.
    std::string single(const ModelCase& model, const Flags& flags, const std::string& name);
    // Trains --local with a plan by hand.
    std::string local(const ModelCase& model, const std::string& plan, const Flags& flags,
                      const std::string& name);
    ModelCase torchscript(const std::string& name, int layers);  // of models.py
    TemporaryDirectory directory_;
};

}  // namespace ecopipe::test
