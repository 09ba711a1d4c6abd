// ecopipe-bench aggregate: how fast updates fold into the server's sums, beside a plain float axpy
// of the same size. One thread, memory to memory, medians of turns A B A B.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "bench/subcommands.h"
#include "core/clock.h"
#include "core/command_line.h"
#include "core/random.h"
#include "core/statistics.h"
#include "fl_server/numbers/aggregator.h"

namespace ecopipe {
namespace {

// y += a x, as a compiler vectorises it.
void axpy(float* y, const float* x, std::size_t n, float a) {
    for (std::size_t i = 0; i < n; ++i) y[i] += a * x[i];
}

std::shared_ptr<const std::string> draw(std::size_t elements, std::uint64_t seed) {
    Rng rng(seed);
    std::string bytes(elements * sizeof(float), '\0');
    for (std::size_t i = 0; i < elements; ++i) {
        const auto value = static_cast<float>(rng.uniform(-0.05, 0.05));
        std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
    }
    return std::make_shared<const std::string>(std::move(bytes));
}

}  // namespace

Result<ExitCode> bench_aggregate(int argc, const char* const* argv) {
    CommandLine line("ecopipe-bench aggregate", "folding updates against a plain float axpy");
    line.integer("parameters", "of the model", {1, 1LL << 32}, 1200000);
    line.integer("turns", "of each", {1, 1000000}, 51);
    line.flag("json", "as JSON");
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    const auto elements = static_cast<std::size_t>(line.get_integer("parameters"));
    ECOPIPE_ASSIGN_OR_RETURN(
        const ModelLayout layout,
        ModelLayout::create(
            {{"w", DType::kF32, {static_cast<std::int64_t>(elements)}, StateKind::kParameter, 0}}));
    const auto base = draw(elements, 1);
    CheckedUpdate update{memory_source(draw(elements, 2)), 0, {}};
    ECOPIPE_ASSIGN_OR_RETURN(update.measure,
                             measure_update(layout, *update.bytes, memory_source(base)));
    AggregatorState start;
    start.global = base;
    Aggregator aggregator(layout, std::move(start), {}, {0, 1, false});
    std::vector<float> sums(elements, 0.0F);
    const auto x = draw(elements, 3);
    std::vector<double> axpy_times;
    std::vector<double> fold_times;
    const std::int64_t turns = line.get_integer("turns");
    for (std::int64_t turn = 0; turn < turns; ++turn) {
        const Instant a = monotonic_now();
        axpy(sums.data(), reinterpret_cast<const float*>(x->data()), elements, 0.5F);
        const Instant b = monotonic_now();
        ECOPIPE_RETURN_IF_ERROR(aggregator.fold({"c", 1, 0, 100}, update));
        const Instant c = monotonic_now();
        axpy_times.push_back(to_ms(b - a) / 1000);
        fold_times.push_back(to_ms(c - b) / 1000);
    }
    const double axpy_s = median(std::move(axpy_times));
    const double fold_s = median(std::move(fold_times));
    const double bytes = static_cast<double>(elements) * sizeof(float);
    const double checksum = static_cast<double>(sums[elements / 2]);
    if (line.get_flag("json"))
        fmt::print("{}\n", OrderedJson{{"parameters", elements},
                                       {"axpy_gb_per_s", bytes / axpy_s / 1e9},
                                       {"fold_gb_per_s", bytes / fold_s / 1e9},
                                       {"ratio", axpy_s / fold_s},
                                       {"checksum", checksum}}
                               .dump());
    else
        fmt::print("{} parameters: axpy {:.1f} GB/s of updates, fold {:.1f} GB/s, ratio {:.2f}\n",
                   elements, bytes / axpy_s / 1e9, bytes / fold_s / 1e9, axpy_s / fold_s);
    return ExitCode::kDone;
}

}  // namespace ecopipe
