#include "orchestrator/train/single_engine.h"

#include <fmt/format.h>

#include "core/clock.h"
#include "core/step_number.h"
#include "core/tensor_memory.h"
#include "stage_runtime/data/evaluation_reader.h"

namespace ecopipe {
namespace {

class SingleEngine : public TrainingEngine {
  public:
    explicit SingleEngine(SingleProcess process) : process_(std::move(process)) {}

    Result<void> load(const TensorMap& state, std::uint64_t step) override {
        process_.reset_optimizer();
        base_ = step;
        return process_.load(state);
    }

    Result<void> start_step(std::uint64_t step, std::vector<Batch> micro_batches,
                            double loss_divisor, bool) override {
        step_ = step;
        micro_batches_ = std::move(micro_batches);
        loss_divisor_ = loss_divisor;
        return {};
    }

    Result<StepOutcome> finish_step() override {
        const Instant started = monotonic_now();
        auto totals = process_.run_step(step_, micro_batches_, loss_divisor_);
        if (!totals) return fail_in(step_text(step_ + 1), totals.error());
        StepOutcome outcome;
        outcome.loss = totals->loss;
        outcome.squared_gradient_norms = totals->squared_gradient_norms;
        outcome.nonfinite_layer = totals->nonfinite_layer;
        DeviceReport report;
        report.device = kDevice;
        report.busy_ms = to_ms(monotonic_now() - started);
        report.peak_memory = take_peak();
        outcome.devices.push_back(report);
        outcome.recovery_point = base_;
        return outcome;
    }

    Result<void> commit(double learning_rate, double gradient_scale) override {
        process_.commit(learning_rate, gradient_scale);
        return {};
    }

    Result<LossTotals> evaluate(const Dataset& data, int batch, int readers) override {
        LossTotals totals;
        EvaluationReader reader(data, batch, readers);
        for (std::uint64_t i = 0; i < reader.count(); ++i) {
            ECOPIPE_ASSIGN_OR_RETURN(const Batch part, reader.take());
            ECOPIPE_RETURN_IF_ERROR(process_.evaluate(part, totals));
        }
        static_cast<void>(take_peak());
        return totals;
    }

    Result<TensorMap> state(bool optimizer_state) override {
        return process_.state(optimizer_state);
    }
    Result<void> set_base(const TensorMap&, std::uint64_t step) override {
        base_ = step;
        return {};
    }
    void end(ExitCode, const std::string&) override {}
    std::map<std::string, MemoryByUse> peak_memory() const override { return {{kDevice, peak_}}; }

  private:
    static constexpr const char* kDevice = "this process";

    // Since it was last asked.
    MemoryByUse take_peak() {
        const MemoryByUse peak = peak_tensor_memory();
        reset_peak_tensor_bytes();
        if (peak.total() > peak_.total()) peak_ = peak;
        return peak;
    }

    SingleProcess process_;
    std::uint64_t step_ = 0;
    std::uint64_t base_ = 0;
    std::vector<Batch> micro_batches_;
    double loss_divisor_ = 1;
    MemoryByUse peak_;
};

}  // namespace

Result<std::unique_ptr<TrainingEngine>> make_single_engine(const ModelSpec& spec,
                                                           const ExecutorOptions& options) {
    ECOPIPE_ASSIGN_OR_RETURN(SingleProcess process, SingleProcess::create(spec, options));
    return std::make_unique<SingleEngine>(std::move(process));
}

}  // namespace ecopipe
