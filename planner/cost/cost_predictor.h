#pragma once
// Completes a partial profile: the times of layers that were not measured on a device, from those
// that were.
//
// Three predictors compete, each fitted at every micro-batch size with relative errors as its
// weight:
// - all layers together: t = a + b * FLOPs + c * bytes moved, coefficients not negative;
// - the same for each kind of layer with three measured ones or more, else the first;
// - the time on the device of the complete profile, scaled by the mean ratio of that kind (of all,
// for a kind that was not
//   measured).
// The one with the least mean leave-one-out error on the measured layers is used, and that error is
// reported beside that of scaling by FLOPs alone. Update times scale with the complete profile's.

#include <string>

#include "planner/cost/model_profile.h"

namespace ecopipe {

// How a partial profile was completed.
struct PredictedLayers {
    std::string device;
    int count = 0;     // layers whose times were predicted
    double error = 0;  // mean relative leave-one-out error of the predictor on the measured layers
    double flops_error =
        0;  // the same when times are scaled by FLOPs alone; 0 when FLOPs are unknown
};

struct Completed {
    ModelProfile profile;  // complete, partial == false
    PredictedLayers report;
};

// `whole` is a complete profile of the same model; it lists the layers and has their sizes, kinds
// and FLOPs. Refused (kBadFile, with the partial profile's source): a layer that `whole` lacks or
// lists in another order, fewer than three measured layers, or no micro-batch size within the
// measured range of all.
[[nodiscard]] Result<Completed> complete_profile(const ModelProfile& partial,
                                                 const ModelProfile& whole);

}  // namespace ecopipe
