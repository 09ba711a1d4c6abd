#include "planner/search/partition_local.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <set>

#include "core/random.h"
#include "planner/search/layout.h"
#include "planner/search/layout_moves.h"
#include "planner/search/packing.h"
#include "planner/search/refinement.h"
#include "planner/search/suffix_beam.h"

namespace ecopipe {
namespace {

constexpr std::size_t kPoolMax = 24;         // layouts that go from the annealing to the simulator
constexpr std::size_t kStartsSimulated = 8;  // of the known layouts, besides the single devices
constexpr int kVectorsLocal = 16;  // in-flight vectors tried exhaustively during the search
constexpr std::uint64_t kEstimateCost = 12;  // of one stage's estimate, in actions of the wavefront
constexpr std::uint64_t kGraphEstimateCost = 500;  // the same of a graph
constexpr std::uint64_t kPackCost = 36;            // of one stage's packing
constexpr std::uint64_t kRestarts = 3;

constexpr std::size_t kFinalistsMax = 16;        // arrangements that are refined
constexpr std::size_t kCompletions = 10;         // of a beam, that may become finalists
constexpr double kScanned = 18 * 48 + 10 * 192;  // widths of the beams of a scan, added up
constexpr double kWidthMax = 5'000;              // of a beam: 40 MB on 16 devices

bool same_devices(const Arrangement& a, const Arrangement& b) {
    return std::equal(a.stages.begin(), a.stages.end(), b.stages.begin(), b.stages.end(),
                      [](const StageSpan& x, const StageSpan& y) { return x.device == y.device; });
}

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
          estimator_(model_, appraiser.schedule()),
          packer_(model_, appraiser.schedule()),
          rng_(seed),
          begin_(appraiser.work()),
          work_max_(work_max) {}

    void run() {
        std::vector<Layout> starts = known_layouts();
        for (const Layout& layout : starts) pool_.offer(estimate(layout), layout);
        std::sort(starts.begin(), starts.end(), [&](const Layout& a, const Layout& b) {
            return estimator_.step_ms(a) < estimator_.step_ms(b);
        });
        for (std::size_t i = 0; i < starts.size(); ++i)
            if (i < kStartsSimulated || starts[i].devices.size() == 1) simulate(starts[i]);
        if (may_build(work_max_ * 4 / 10)) {
            scan_spreads(work_max_ * 4 / 10);
            refine_finalists();
            return;
        }
        // Orders first, with the cuts that fit them; then cuts, orders and subsets together from
        // the best found.
        for (std::uint64_t round = 1; round <= kRestarts; ++round) {
            anneal_orders(round == 1 ? starts.front() : pool_.entries().front().layout,
                          work_max_ * (2 * round - 1) / (8 * kRestarts));
            anneal(pool_.entries().front().layout, work_max_ * (2 * round) / (8 * kRestarts));
        }
        for (const Pool::Entry& entry : pool_.entries())
            if (done() < work_max_ * 3 / 10 || appraiser_.best().stages.empty())
                finalist(simulate(entry.layout));
        refine_finalists();
    }

    [[nodiscard]] std::vector<StageSpan> best_by_estimate() {
        return estimator_.stages(pool_.entries().front().layout);
    }

  private:
    [[nodiscard]] std::uint64_t done() const { return appraiser_.work() - begin_; }

    double estimate(const Layout& layout) {
        appraiser_.add_work((model_.is_graph() ? kGraphEstimateCost : kEstimateCost) *
                            layout.devices.size());
        return estimator_.step_ms(layout);
    }
    Arrangement simulate(const Layout& layout) {
        return appraiser_.appraise(estimator_.stages(layout), kVectorsLocal);
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

    // Simulated annealing over permutations of all devices, of which the packing uses as many as it
    // needs.
    void anneal_orders(const Layout& start, std::uint64_t until) {
        constexpr double kHotMove = 0.05;
        constexpr double kCold = 0.001;
        std::vector<int> order = start.devices;
        for (int d = 0; d < model_.devices(); ++d)
            if (std::find(order.begin(), order.end(), d) == order.end()) order.push_back(d);
        Layout layout = start;
        double ms = estimate(start);
        const std::uint64_t begin = done();
        while (order.size() > 1 && done() < until) {
            const double share =
                static_cast<double>(done() - begin) / static_cast<double>(until - begin);
            const double heat = kHotMove * std::pow(kCold / kHotMove, share);
            std::vector<int> next = order;
            move_order(next, layout.devices.size(), rng_);
            const double limit_ms = ms * (1 - heat * std::log(1 - rng_.uniform()));
            const auto packed =
                pack_tightly(next, limit_ms, static_cast<int>(layout.devices.size()));
            if (!packed) continue;
            const double next_ms = estimate(*packed);
            pool_.offer(next_ms, *packed);
            if (next_ms > limit_ms) continue;
            order = std::move(next);
            layout = *packed;
            ms = next_ms;
        }
    }

    // The packing of an order for the least step time up to `limit_ms`, to a thousandth or so.
    std::optional<Layout> pack_tightly(const std::vector<int>& order, double limit_ms,
                                       int stages_expected) {
        const auto pack = [&](double ms) {
            appraiser_.add_work(kPackCost * order.size());
            return packer_.pack(order, ms, stages_expected);
        };
        std::optional<Layout> best = pack(limit_ms);
        double low = 0.94 * limit_ms;
        double high = limit_ms;
        for (int i = 0; best && i < 6; ++i) {
            const double middle = (low + high) / 2;
            if (auto tighter = pack(middle)) {
                best = std::move(tighter);
                high = middle;
            } else {
                low = middle;
            }
        }
        return best;
    }

    // Simulated annealing on the estimate, from 5 % of the step down to 0.05 %.
    void anneal(Layout layout, std::uint64_t until) {
        constexpr double kHotMove = 0.05;
        constexpr double kCold = 0.0005;
        double ms = estimate(layout);
        const std::uint64_t start = done();
        double heat = kHotMove;
        for (int step = 0; done() < until; ++step) {
            if (step % 64 == 0)
                heat = kHotMove *
                       std::pow(kCold / kHotMove,
                                static_cast<double>(done() - start) /
                                    static_cast<double>(std::max<std::uint64_t>(1, until - start)));
            Layout next = layout;
            appraiser_.add_work(8);  // so that a layout without a possible move ends too
            if (!move_randomly(next, model_.devices(), estimator_.atoms(), rng_)) continue;
            const double next_ms = estimate(next);
            if (next_ms > ms && rng_.uniform() >= std::exp((ms - next_ms) / (heat * ms))) continue;
            layout = std::move(next);
            ms = next_ms;
            pool_.offer(ms, layout);
        }
    }

    // Pipelines built from the last stage up (suffix_beam.h), for spreads all over the range at
    // first and then closer and closer to the best, with ever wider beams.
    void scan_spreads(std::uint64_t until) {
        SuffixBeam beam(model_);
        Scan scan;
        for (double share = 0.1; share < 1 && done() < until; share += 0.05)
            build(beam, share, 48, 1.15, scan);
        if (scan.best_share <= 0) return;
        for (double by = 0.025; by > 0.003 && done() < until; by /= 2)
            for (const double share : {scan.best_share - by, scan.best_share + by})
                build(beam, share, 192, 1.05, scan);
        const std::uint64_t before = done();
        build(beam, scan.best_share, 384, 1.03, scan);
        const double each = static_cast<double>(until - std::min(until, done())) / 4;
        const double width = 384 * each / static_cast<double>(done() - before);
        const double middle = scan.best_share;
        for (const double by : {0.0, -0.01, 0.01, 0.02})
            if (width >= 1) build(beam, middle + by, std::min(width, kWidthMax), 1.03, scan);
    }

    struct Scan {
        double best_share = 0;  // of the step at the time
        double best_ms = std::numeric_limits<double>::infinity();
    };
    // `loose`: how much above the best step a suffix may promise to end, as a factor.
    void build(SuffixBeam& beam, double share, double width, double loose, Scan& scan) {
        const double best_ms = appraiser_.best().step_ms;
        const std::uint64_t before = beam.work();
        const auto completions = beam.build(share * best_ms, loose * best_ms,
                                            static_cast<std::size_t>(width), kCompletions);
        appraiser_.add_work(beam.work() - before);
        for (const SuffixBeam::Completion& completion : completions) {
            Arrangement found{completion.stages, completion.in_flight, 0};
            found.step_ms = appraiser_.below_ms(found.stages, found.in_flight,
                                                std::numeric_limits<double>::infinity());
            if (found.step_ms < scan.best_ms) scan = {share, found.step_ms};
            appraiser_.offer(found);
            finalist(std::move(found));
        }
    }

    // Whether suffix beams apply, and `work` is enough for a scan of narrow ones.
    [[nodiscard]] bool may_build(std::uint64_t work) const {
        return appraiser_.schedule().paced() && model_.micro_batches() > 1 && !model_.is_graph() &&
               model_.devices() > 1 && !appraiser_.best().stages.empty() &&
               SuffixBeam::expected_work(model_, kScanned) < static_cast<double>(work);
    }

    void finalist(Arrangement arrangement) {
        if (arrangement.stages.empty()) return;
        for (Arrangement& known : finalists_) {
            if (!same_devices(known, arrangement)) continue;
            if (better(arrangement, known)) known = std::move(arrangement);
            return;
        }
        finalists_.push_back(std::move(arrangement));
        std::sort(finalists_.begin(), finalists_.end(), better);
        if (finalists_.size() > kFinalistsMax) finalists_.pop_back();
    }

    // The finalists take turns; then the better half of them, longer, and so on.
    void refine_finalists() {
        if (appraiser_.best().stages.empty()) return;
        finalist(appraiser_.best());
        Refiner refiner(appraiser_, estimator_, rng_);
        std::size_t count = finalists_.size();
        int rounds = 1;
        for (std::size_t c = count; c > 1; c = (c + 1) / 2) ++rounds;
        for (int round = 0; round < rounds; ++round) {
            const std::uint64_t share = (work_max_ - std::min(done(), work_max_)) /
                                        static_cast<std::uint64_t>(rounds - round);
            for (std::size_t i = 0; i < count; ++i)
                finalists_[i] = refiner.refine(finalists_[i], share / count);
            std::sort(finalists_.begin(), finalists_.end(), better);
            count = (count + 1) / 2;
        }
    }

    Appraiser& appraiser_;
    const CostModel& model_;
    LayoutEstimator estimator_;
    Packer packer_;
    Rng rng_;
    std::uint64_t begin_;
    std::uint64_t work_max_;
    Pool pool_;
    std::vector<Arrangement> finalists_;
};

}  // namespace

std::vector<StageSpan> least_misfit(const CostModel& model, const Schedule& schedule,
                                    std::uint64_t work_max, std::uint64_t seed) {
    Appraiser appraiser(model, schedule);
    LocalSearch search(appraiser, work_max, seed);
    search.run();
    return search.best_by_estimate();
}

void search_locally(Appraiser& appraiser, std::uint64_t work_max, std::uint64_t seed) {
    LocalSearch(appraiser, work_max, seed).run();
}

}  // namespace ecopipe
