#pragma once
// What is minimised, and what was measured of it.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ecopipe {

// What is minimised.
struct LossSpec {
    std::string name = "cross_entropy";  // of stage_runtime/engine/model/loss_names.h
    // Of cross_entropy: targets of this value count neither in the sum nor in the divisor.
    std::int64_t ignore_index = -100;
    std::vector<double> class_weights;  // of cross_entropy, one a class; empty: 1 each

    template <class Archive>
    void serialize(Archive& ar) {
        ar(name, ignore_index, class_weights);
    }
    friend bool operator==(const LossSpec&, const LossSpec&) = default;
};

// Sums over samples; those of a batch are the sums of its micro-batches', in their order.
struct LossTotals {
    double sum = 0;            // of the labels' losses, each times its class's weight
    double weight = 0;         // what the loss is that sum over: labels, or their classes' weights
    std::uint64_t labels = 0;  // without ignored ones
    std::uint64_t correct = 0;
    double absolute_error = 0;  // regression only

    template <class Archive>
    void serialize(Archive& ar) {
        ar(sum, weight, labels, correct, absolute_error);
    }
    void add(const LossTotals& other) {
        sum += other.sum;
        weight += other.weight;
        labels += other.labels;
        correct += other.correct;
        absolute_error += other.absolute_error;
    }
    // 0 where nothing counted.
    [[nodiscard]] double loss() const { return weight > 0 ? sum / weight : 0; }
    [[nodiscard]] double accuracy() const {
        return labels > 0 ? static_cast<double>(correct) / static_cast<double>(labels) : 0;
    }
    [[nodiscard]] double mean_absolute_error() const {
        return labels > 0 ? absolute_error / static_cast<double>(labels) : 0;
    }
};

// Of one step, over some layers.
struct StepTotals {
    LossTotals loss;                             // where the last layer is one of them
    std::map<std::uint32_t, LossTotals> losses;  // of each micro-batch, likewise
    std::vector<double> squared_gradient_norms;  // one a layer, in layer order
    int nonfinite_layer = -1;  // model's index of the first layer with a non-finite gradient
};

}  // namespace ecopipe
