#include "planner/partition_local.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/random.h"
#include "planner/layout.h"
#include "planner/layout_moves.h"

namespace ecopipe {
namespace {

constexpr std::size_t kPoolMax = 24;  // layouts that go from the annealing to the simulator
constexpr int kVectorsMax = 16;       // in-flight vectors tried exhaustively during the search
constexpr std::uint64_t kEstimateCost = 4;  // of one stage's estimate, in actions of the recurrence
constexpr int kRestarts = 4;

// The best layouts seen, by estimate, each once.
class Pool {
  public:
    void offer(double estimate_ms, const Layout& layout) {
        if (entries_.size() == kPoolMax && estimate_ms >= entries_.back().estimate_ms) return;
        for (const Entry& entry : entries_)
            if (entry.layout == layout) return;
        const auto at =
            std::upper_bound(entries_.begin(), entries_.end(), estimate_ms,
                             [](double ms, const Entry& entry) { return ms < entry.estimate_ms; });
        entries_.insert(at, {estimate_ms, layout});
        if (entries_.size() > kPoolMax) entries_.pop_back();
    }
    struct Entry {
        double estimate_ms;
        Layout layout;
    };
    [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }

  private:
    std::vector<Entry> entries_;
};

class LocalSearch {
  public:
    LocalSearch(Appraiser& appraiser, std::uint64_t work_max, std::uint64_t seed)
        : appraiser_(appraiser),
          model_(appraiser.model()),
          estimator_(model_, appraiser.kind()),
          rng_(seed),
          begin_(appraiser.work()),
          work_max_(work_max) {}

    void run() {
        std::vector<Layout> starts = known_layouts();
        for (const Layout& layout : starts) {
            pool_.offer(estimate(layout), layout);
            simulate(layout);
        }
        std::sort(starts.begin(), starts.end(), [&](const Layout& a, const Layout& b) {
            return estimator_.step_ms(a) < estimator_.step_ms(b);
        });
        for (int round = 0; round < kRestarts; ++round)
            anneal(round % 2 == 0 ? starts.front() : pool_.entries().front().layout,
                   work_max_ * 3 / 5 * static_cast<std::uint64_t>(round + 1) / kRestarts);
        for (const Pool::Entry& entry : pool_.entries())
            if (done() < work_max_ * 7 / 10 || appraiser_.best().stages.empty())
                simulate(entry.layout);
        polish();
    }

    [[nodiscard]] std::vector<StageSpan> best_by_estimate() {
        return estimator_.stages(pool_.entries().front().layout);
    }

  private:
    [[nodiscard]] std::uint64_t done() const { return appraiser_.work() - begin_; }

    double estimate(const Layout& layout) {
        appraiser_.add_work(kEstimateCost * layout.devices.size());
        return estimator_.step_ms(layout);
    }
    Arrangement simulate(const Layout& layout) {
        return appraiser_.appraise(estimator_.stages(layout), kVectorsMax);
    }

    // What people would try first, and what other planners do.
    std::vector<Layout> known_layouts() {
        std::vector<int> given(static_cast<std::size_t>(model_.devices()));
        std::iota(given.begin(), given.end(), 0);
        std::vector<int> by_speed = given;
        const auto whole = [&](int d) { return estimator_.work_ms(d, 0, estimator_.atoms()); };
        std::stable_sort(by_speed.begin(), by_speed.end(),
                         [&](int a, int b) { return whole(a) < whole(b); });
        std::vector<Layout> out;
        for (const int d : given) out.push_back({{d}, {estimator_.atoms()}});
        for (std::size_t count = 2; count <= given.size(); ++count) {
            std::vector<int> fastest(by_speed.begin(),
                                     by_speed.begin() + static_cast<std::ptrdiff_t>(count));
            out.push_back(least_largest_stage(estimator_, fastest));
            std::reverse(fastest.begin(), fastest.end());
            out.push_back(least_largest_stage(estimator_, fastest));
            std::sort(fastest.begin(), fastest.end());
            out.push_back(least_largest_stage(estimator_, fastest));
            out.push_back(even_layout(estimator_, fastest));
        }
        std::erase_if(out, [](const Layout& layout) { return layout.devices.empty(); });
        return out;
    }

    // Simulated annealing on the estimate, from 5 % of the step down to 0.05 %.
    void anneal(Layout layout, std::uint64_t until) {
        constexpr double kHot = 0.05;
        constexpr double kCold = 0.0005;
        double ms = estimate(layout);
        const std::uint64_t start = done();
        double heat = kHot;
        for (int step = 0; done() < until; ++step) {
            if (step % 64 == 0)
                heat = kHot *
                       std::pow(kCold / kHot,
                                static_cast<double>(done() - start) /
                                    static_cast<double>(std::max<std::uint64_t>(1, until - start)));
            Layout next = layout;
            appraiser_.add_work(1);  // so that a layout without a possible move ends too
            if (!move_randomly(next, model_.devices(), estimator_.atoms(), rng_)) continue;
            const double next_ms = estimate(next);
            if (next_ms > ms && rng_.uniform() >= std::exp((ms - next_ms) / (heat * ms))) continue;
            layout = std::move(next);
            ms = next_ms;
            pool_.offer(ms, layout);
        }
    }

    // Small steps from the best arrangement under the simulator, as long as the work lasts.
    void polish() {
        if (appraiser_.best().stages.empty()) return;
        Layout layout = layout_of(appraiser_.best());
        int idle = 0;
        const int patience = 60 * static_cast<int>(layout.devices.size()) + 200;
        while (done() < work_max_ && idle < patience) {
            Layout next = layout;
            ++idle;
            appraiser_.add_work(1);
            if (!move_randomly(next, model_.devices(), estimator_.atoms(), rng_)) continue;
            if (estimate(next) > appraiser_.best().step_ms * 1.02) continue;
            const double before = appraiser_.best().step_ms;
            simulate(next);
            if (step_less(appraiser_.best().step_ms, before)) {
                layout = next;
                idle = 0;
            }
        }
    }

    Layout layout_of(const Arrangement& arrangement) {
        Layout out;
        int atom = 0;
        for (const StageSpan& stage : arrangement.stages) {
            for (int layer = stage.first; layer <= stage.last; ++layer)
                atom += model_.may_cut_before(layer) ? 1 : 0;
            out.devices.push_back(stage.device);
            out.ends.push_back(atom);
        }
        return out;
    }

    Appraiser& appraiser_;
    const CostModel& model_;
    LayoutEstimator estimator_;
    Rng rng_;
    std::uint64_t begin_;
    std::uint64_t work_max_;
    Pool pool_;
};

}  // namespace

std::vector<StageSpan> least_misfit(const CostModel& model, ScheduleKind kind,
                                    std::uint64_t work_max, std::uint64_t seed) {
    Appraiser appraiser(model, kind);
    LocalSearch search(appraiser, work_max, seed);
    search.run();
    return search.best_by_estimate();
}

void search_locally(Appraiser& appraiser, std::uint64_t work_max, std::uint64_t seed) {
    LocalSearch(appraiser, work_max, seed).run();
}

}  // namespace ecopipe
