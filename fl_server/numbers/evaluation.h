#pragma once
// What a model is worth on some data.

namespace ecopipe {

struct Evaluation {
    double loss = 0;
    double accuracy = 0;
};

}  // namespace ecopipe
