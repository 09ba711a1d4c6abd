#include "planner/schedule/holder_actions.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/log.h"
#include "domain/plan_index.h"
#include "planner/schedule/registry.h"
#include "planner/schedule/schedule_csv.h"

namespace ecopipe {
namespace {

Result<void> check_blocks(const Plan& plan, const std::string& source) {
    std::set<std::string> seen;
    for (std::size_t s = 0; s < plan.stages.size(); ++s) {
        std::vector<int> owners(static_cast<std::size_t>(plan.sum_blocks), 0);
        for (const StageHolder& holder : holders_of(plan.stages[s], plan.sum_blocks)) {
            if (!seen.insert(holder.device).second)
                return fail(ExitCode::kBadFile,
                            fmt::format("{}: stages[{}]: expected every device once where stages "
                                        "have twins, found {} again",
                                        source, s, printable(holder.device)));
            if (holder.blocks.empty())
                return fail(ExitCode::kBadFile,
                            fmt::format("{}: stages[{}]: expected a sum block for {}, found none",
                                        source, s, printable(holder.device)));
            for (const int block : holder.blocks) {
                if (block < 0 || block >= plan.sum_blocks)
                    return fail(
                        ExitCode::kBadFile,
                        fmt::format("{}: stages[{}]: expected sum blocks below {}, found "
                                    "{} of {}",
                                    source, s, plan.sum_blocks, block, printable(holder.device)));
                ++owners[static_cast<std::size_t>(block)];
            }
        }
        for (std::size_t block = 0; block < owners.size(); ++block)
            if (owners[block] != 1)
                return fail(ExitCode::kBadFile,
                            fmt::format("{}: stages[{}]: expected one device for sum block {}, "
                                        "found {}",
                                        source, s, block, owners[block]));
    }
    return {};
}

// Runs the lists without time and says where they stop, if they do. A forward needs the stage
// before's of its micro-batch, a backward the stage after's.
Result<void> check_order(const Plan& plan, const std::vector<ActionList>& lists,
                         const std::string& source) {
    const PlanIndex index(plan);
    const auto stages = index.stage_count();
    const auto cells = stages * static_cast<std::size_t>(plan.micro_batches);
    std::vector<bool> forward(cells, false);
    std::vector<bool> backward(cells, false);
    std::vector<std::size_t> next(lists.size(), 0);
    const auto cell = [&](std::size_t stage, int micro_batch) {
        return stage * static_cast<std::size_t>(plan.micro_batches) +
               static_cast<std::size_t>(micro_batch);
    };
    const auto runs = [&](std::size_t stage, const Action& action) {
        const int m = action.micro_batch;
        switch (action.kind) {
            case ActionKind::kForward:
                if (stage > 0 && !forward[cell(stage - 1, m)]) return false;
                forward[cell(stage, m)] = true;
                return true;
            case ActionKind::kWeightGradient:
                return true;
            case ActionKind::kBackward:
            case ActionKind::kInputGradient:
                if (stage + 1 < stages && !backward[cell(stage + 1, m)]) return false;
                backward[cell(stage, m)] = true;
                return true;
        }
        return false;
    };
    const std::vector<std::string>& devices = index.devices();
    for (bool moved = true; moved;) {
        moved = false;
        for (std::size_t d = 0; d < lists.size(); ++d) {
            const std::size_t stage = index.stages_of(devices[d]).front().index();
            while (next[d] < lists[d].size() && runs(stage, lists[d][next[d]])) {
                ++next[d];
                moved = true;
            }
        }
    }
    for (std::size_t d = 0; d < lists.size(); ++d)
        if (next[d] < lists[d].size())
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: stages[{}]: {} of {}: expected an order in which every "
                                    "action can run, found a deadlock: in_flight of an earlier "
                                    "stage is too small",
                                    source, index.stages_of(devices[d]).front().value,
                                    action_text(lists[d][next[d]]), printable(devices[d])));
    return {};
}

}  // namespace

Result<void> check_holders(const Plan& plan, const std::string& source) {
    ECOPIPE_RETURN_IF_ERROR(check_blocks(plan, source));
    const Schedule* schedule = find_schedule(plan.schedule);
    if (schedule == nullptr || schedule->sliced() ||
        std::any_of(plan.stages.begin(), plan.stages.end(),
                    [](const StagePlan& stage) { return stage.actions.has_value(); }))
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: schedule: expected a named one without slices where stages "
                                "have twins, found '{}'",
                                source, printable(plan.schedule)));
    if (schedule->splits_backward)
        for (std::size_t s = 0; s < plan.stages.size(); ++s)
            for (const StageHolder& holder : holders_of(plan.stages[s], plan.sum_blocks))
                if (!holder.recomputed.empty())
                    return fail(ExitCode::kBadFile,
                                fmt::format("{}: stages[{}].recompute: expected false under {}, "
                                            "found true",
                                            source, s, schedule->name));
    return check_order(plan, holder_actions(plan, plan.micro_batches), source);
}

std::vector<ActionList> holder_actions(const Plan& plan, int micro_batches) {
    const Schedule& schedule = *find_schedule(plan.schedule);
    const SumTree tree(plan.sum_blocks);
    std::vector<ActionList> lists;
    for (std::size_t s = 0; s < plan.stages.size(); ++s)
        for (const StageHolder& holder : holders_of(plan.stages[s], plan.sum_blocks)) {
            std::vector<int> own;
            for (int m = 0; m < micro_batches; ++m)
                if (std::binary_search(holder.blocks.begin(), holder.blocks.end(),
                                       tree.block_of(static_cast<std::uint32_t>(m))))
                    own.push_back(m);
            ActionList& list = lists.emplace_back();
            if (own.empty()) continue;
            ScheduleShape shape;
            shape.micro_batches = static_cast<int>(own.size());
            shape.device = static_cast<int>(s);
            shape.devices = static_cast<int>(plan.stages.size());
            shape.in_flight = holder.in_flight;
            list = schedule.actions(shape);
            for (Action& action : list)
                action.micro_batch = own[static_cast<std::size_t>(action.micro_batch)];
        }
    return lists;
}

}  // namespace ecopipe
