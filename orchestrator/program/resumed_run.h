#pragma once
// What a run that goes on (--resume) takes from the one before it in its directory.

#include <cstdint>

#include "core/host_tensor.h"
#include "core/result.h"
#include "orchestrator/program/train_command_line.h"
#include "orchestrator/train/run_record.h"
#include "orchestrator/train/validation_history.h"

namespace ecopipe {

// The run in this directory ended by itself at this step: its results stand.
[[nodiscard]] bool ended_at(const RunRecord& record, std::uint64_t step);

// Where to go on from: the newest checkpoint, whose state and history replace these, or the
// beginning. Errors: kUsage or kBadFile for flags that the bytes depend on and that were others.
[[nodiscard]] Result<std::uint64_t> resume_point(const TrainOptions& options,
                                                 const RunRecord& record, TensorMap& state,
                                                 ValidationHistory& history);

// --micro-batches auto and --sum-blocks auto: the numbers that the run began with, since bytes
// depend on them. Nothing without --resume. Errors: kBadFile for a run.json without them.
[[nodiscard]] Result<void> keep_planned_numbers(TrainOptions& options, const RunRecord& record);

}  // namespace ecopipe
