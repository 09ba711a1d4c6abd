#pragma once
// How good a global model is when the clusters test it, each on its own data. Pure.

#include <cstdint>
#include <optional>
#include <vector>

namespace ecopipe {

// A cluster's newest test of a model that it trained from.
struct ClientTest {
    std::uint64_t version = 0;
    std::uint64_t samples = 0;  // 0: it has tested none
    double accuracy = 0;
};

struct ClientVerdict {
    std::uint64_t version = 0;  // the newest one that was tested
    double accuracy = 0;
};

// The word of a majority of the clusters that test, or none yet. `tests`: of each cluster that
// takes part and tests, its newest, or one without samples.
//
// When a majority has tested the newest version, as in a synchronous round, theirs count and no
// others. Under an asynchronous strategy a version is tested by the one or two that it went to, and
// a version that an easy data set tested would look the best: there the newest test of every
// cluster counts, whatever version it was of, so that the clusters are the same from one verdict to
// the next. A cluster weighs as many samples as it tested on, as `weight_max` bounds them.
[[nodiscard]] std::optional<ClientVerdict> client_verdict(const std::vector<ClientTest>& tests,
                                                          double weight_max);

}  // namespace ecopipe
