#include "planner/search/schedule_search.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "planner/search/partition_exhaustive.h"
#include "planner/search/partition_local.h"

namespace ecopipe {
namespace {

// Effort 1, in actions of the wavefront, of which about 300 million pass a second on one core of
// 2023 (the branch and bound and the sliced search spend theirs three times slower).
constexpr double kFirstLook = 3e6;
constexpr double kExhaustive = 3e7;
constexpr double kLocal = 7.2e8;
constexpr double kSliced = 8e7;
constexpr int kVectorsMax = 256;  // in-flight vectors that are all tried
constexpr int kSlicesTried = 4;
constexpr std::uint64_t kOverrun =
    3;  // of the sliced search: it begins with simulations, whatever they cost
constexpr std::uint64_t kSeed = 0x65636f706970;  // any number would do, as long as it stays

std::uint64_t scaled(double work, double effort) {
    return static_cast<std::uint64_t>(work * effort);
}

std::vector<int> order_of(const Arrangement& arrangement) {
    std::vector<int> out;
    for (const StageSpan& stage : arrangement.stages) out.push_back(stage.device);
    return out;
}

}  // namespace

Found search_whole(const CostModel& model, const Schedule& schedule, double effort) {
    Appraiser appraiser(model, schedule);
    // A good plan first: the better it is, the more the exhaustive search can leave out.
    search_locally(appraiser, scaled(kFirstLook, effort), kSeed);
    const bool optimal =
        search_exhaustively(appraiser, kVectorsMax, appraiser.work() + scaled(kExhaustive, effort));
    if (!optimal) search_locally(appraiser, scaled(kLocal, effort), kSeed + 1);
    Found out{std::string(schedule.name), appraiser.finish(kVectorsMax), 0, {}, optimal};
    out.devices = static_cast<int>(out.arrangement.stages.size());
    return out;
}

Found search_sliced(const CostModel& model, const Schedule& schedule, const Arrangement& start,
                    double effort) {
    Found best{std::string(schedule.name), {}, 0, {}, false};
    const int devices_max = model.devices();
    const auto preferred =
        start.stages.empty() ? devices_max : static_cast<int>(start.stages.size());
    std::vector<int> counts(static_cast<std::size_t>(devices_max));
    std::iota(counts.begin(), counts.end(), 1);
    std::stable_sort(counts.begin(), counts.end(), [&](int a, int b) {
        return std::abs(a - preferred) < std::abs(b - preferred);
    });
    const bool free_slices = schedule.placing == Placing::kCyclic;
    const auto slices_max = [&](int devices) {
        return devices == 1 || !free_slices ? 1 : kSlicesTried;
    };
    std::uint64_t runs = 0;
    for (const int devices : counts) runs += static_cast<std::uint64_t>(slices_max(devices));
    const std::uint64_t work_max = scaled(kSliced, effort);
    const std::uint64_t work_each = work_max / std::max<std::uint64_t>(runs, 1);
    std::uint64_t work = 0;
    for (const int devices : counts)
        for (int slices = 1; slices <= slices_max(devices); ++slices) {
            // Of long steps even the few simulations that every run begins with are too much.
            if (work > kOverrun * work_max && !best.arrangement.stages.empty()) return best;
            const GivenSchedule given =
                given_schedule(schedule, model.micro_batches(), devices, slices);
            std::vector<std::vector<int>> orders;
            // On one device only the choice of it matters: each is a start of its own.
            for (int d = 0; devices == 1 && d < devices_max; ++d) orders.push_back({d});
            if (static_cast<int>(start.stages.size()) == devices) orders.push_back(order_of(start));
            SlicedArrangement found = search_given(model, given, orders, work_each, kSeed + runs);
            work += found.work;
            if (!better(found.arrangement, best.arrangement)) continue;
            best.arrangement = std::move(found.arrangement);
            best.devices = devices;
        }
    return best;
}

Found search_own(const CostModel& model, const std::string& name, const GivenSchedule& schedule,
                 double effort) {
    SlicedArrangement found = search_given(model, schedule, {}, scaled(kSliced * 2, effort), kSeed);
    return {name, std::move(found.arrangement), found.devices, schedule.lists, false};
}

std::vector<StageSpan> nearest_misfit(const CostModel& model, const Schedule& schedule) {
    return least_misfit(model, schedule, scaled(kFirstLook, 4), kSeed);
}

}  // namespace ecopipe
