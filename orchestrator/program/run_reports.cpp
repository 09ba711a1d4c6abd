#include "orchestrator/program/run_reports.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "core/log.h"
#include "core/units.h"
#include "stage_runtime/engine/model/loss_names.h"

namespace ecopipe {
namespace {

// The first stage that compresses what it sends, if one does.
const StagePlan* compressing_stage(const Plan& plan) {
    for (const StagePlan& stage : plan.stages)
        if (stage.codec_forward != TensorCodec::kNone || stage.codec_backward != TensorCodec::kNone)
            return &stage;
    return nullptr;
}

double mib(std::uint64_t bytes) { return static_cast<double>(bytes) / kMib; }

}  // namespace

void tell_numeric_classes(const std::map<std::string, JoinedDevice>& joined, const Plan& plan,
                          RunRecord& record) {
    std::map<std::uint64_t, std::vector<std::string>> classes;
    std::map<std::uint64_t, std::string> summaries;  // of one device each: what computes there
    OrderedJson devices = OrderedJson::object();
    for (const auto& [name, device] : joined) {
        classes[device.hello.numeric_class].push_back(name);
        summaries.emplace(device.hello.numeric_class, device.hello.numeric_summary);
        devices[name] = {{"cpu", device.hello.cpu},
                         {"cores", device.hello.cores},
                         {"threads", device.hello.threads},
                         {"memory_mib", device.hello.memory_mib},
                         {"numeric_class", fmt::format("{:016x}", device.hello.numeric_class)},
                         {"numeric_summary", device.hello.numeric_summary}};
    }
    record.run["devices"] = std::move(devices);
    record.run["numeric_classes"] = classes.size();
    if (classes.size() > 1) {
        std::vector<std::string> who;
        for (const auto& [hash, names] : classes)
            who.push_back(fmt::format("{} with {}", fmt::join(names, " and "), summaries[hash]));
        log_warn(
            "the devices are of {} numeric classes: weights equal those of one process to float "
            "tolerance, not byte for byte ({})",
            classes.size(), fmt::join(who, "; "));
    } else if (const StagePlan* stage = compressing_stage(plan)) {
        log_warn(
            "the plan compresses what {} sends (forward {}, backward {}): weights no longer equal "
            "those of --single",
            stage->device, codec_name(stage->codec_forward), codec_name(stage->codec_backward));
    } else {
        log_info(
            "all devices are of one numeric class: weights are byte-identical to those of one "
            "process");
    }
}

void tell_replicas(const ReplicaPlan& replicas) {
    if (replicas.every > 0) {
        std::vector<std::string> pairs;
        for (const auto& [owner, buddy] : replicas.buddies)
            pairs.push_back(fmt::format("{} to {}", owner, buddy));
        if (pairs.empty()) pairs.emplace_back("twins are each other's");
        log_info("replicas every {} step{}: {}", replicas.every, replicas.every == 1 ? "" : "s",
                 fmt::join(pairs, ", "));
    } else {
        log_warn("no replicas ({}): a lost device sends all back to the newest checkpoint",
                 replicas.why_not);
    }
}

void tell_memory(const Plan& plan, const ReplicaPlan& replicas, const TrainResult& result,
                 RunRecord& record) {
    OrderedJson devices = OrderedJson::object();
    for (const auto& [device, peak] : result.peak_memory) {
        std::uint64_t predicted = predicted_peak_bytes(plan, device);
        if (predicted > 0) predicted += static_cast<std::uint64_t>(replicas.bytes_on(device));
        devices[device] = {{"peak_bytes", peak.total()}, {"predicted_peak_bytes", predicted}};
        OrderedJson uses = OrderedJson::object();
        std::vector<std::string> parts;
        for (const MemoryUse use : kAllMemoryUses) {
            uses[std::string(memory_use_name(use))] = peak[use];
            if (peak[use] >= peak.total() / 100 && peak[use] > 0)
                parts.push_back(fmt::format("{} {:.1f}", memory_use_name(use), mib(peak[use])));
        }
        devices[device]["uses"] = std::move(uses);
        if (predicted > 0)
            log_info("{} used {:.1f} MiB for tensors at most, {:.1f} predicted ({})", device,
                     mib(peak.total()), mib(predicted), fmt::join(parts, ", "));
    }
    record.run["memory"] = std::move(devices);
}

std::string record_results(const std::string& loss, const TrainResult& result,
                           OrderedJson& results) {
    if (result.validation.best_step() > 0) {
        results["best_step"] = result.validation.best_step();
        results["best_validation_loss"] = result.validation.best_loss();
        results["stopped_early"] = result.stopped_early;
    }
    if (result.test.labels == 0) return "";
    results["test_loss"] = result.test.loss();
    if (is_regression(loss)) {
        const double error = result.test.mean_absolute_error();
        results["test_mean_absolute_error"] = error;
        return fmt::format(", test mean absolute error {:.4f}", error);
    }
    const double accuracy = result.test.accuracy();
    results["test_accuracy"] = accuracy;
    return fmt::format(", test accuracy {:.2f} %", 100 * accuracy);
}

}  // namespace ecopipe
