#include "fl_server/service/client_tests.h"

#include <algorithm>

#include "fl_server/numbers/samples_cap.h"

namespace ecopipe {
namespace {

double weighted(const std::vector<ClientTest>& tests, double weight_max) {
    std::vector<std::uint64_t> samples;
    for (const ClientTest& test : tests) samples.push_back(test.samples);
    const std::uint64_t most = samples_cap(std::move(samples), weight_max);
    double sum = 0;
    double weight = 0;
    for (const ClientTest& test : tests) {
        const auto n = static_cast<double>(std::min(test.samples, most));
        sum += n * test.accuracy;
        weight += n;
    }
    return sum / weight;
}

}  // namespace

std::optional<ClientVerdict> client_verdict(const std::vector<ClientTest>& tests,
                                            double weight_max) {
    std::vector<ClientTest> all;
    std::uint64_t newest = 0;
    for (const ClientTest& test : tests) {
        if (test.samples == 0) continue;
        all.push_back(test);
        newest = std::max(newest, test.version);
    }
    if (2 * all.size() <= tests.size()) return std::nullopt;
    std::vector<ClientTest> same;
    for (const ClientTest& test : all)
        if (test.version == newest) same.push_back(test);
    const bool majority = 2 * same.size() > tests.size();
    return ClientVerdict{.version = newest,
                         .accuracy = weighted(majority ? same : all, weight_max)};
}

}  // namespace ecopipe
