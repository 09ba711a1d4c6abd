#pragma once
// What is told of a run, to people and in run.json, besides its steps.

#include <map>
#include <string>

#include "domain/plan.h"
#include "orchestrator/session/device_roster.h"
#include "orchestrator/session/recovery.h"
#include "orchestrator/train/run_record.h"
#include "orchestrator/train/trainer.h"

namespace ecopipe {

// Whether the weights will be those of one process, byte for byte; and what the devices are.
void tell_numeric_classes(const std::map<std::string, JoinedDevice>& joined, const Plan& plan,
                          RunRecord& record);
void tell_replicas(const ReplicaPlan& replicas);
// What the devices' tensors took at most, beside what was foreseen: by the plan, and for replicas.
void tell_memory(const Plan& plan, const ReplicaPlan& replicas, const TrainResult& result,
                 RunRecord& record);
// What the evaluations said, into `results`; the test's as text.
[[nodiscard]] std::string record_results(const std::string& loss, const TrainResult& result,
                                         OrderedJson& results);

}  // namespace ecopipe
