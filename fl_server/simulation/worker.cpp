#include "fl_server/simulation/worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "fl_server/workers/worker_process.h"
#include "stage_runtime/data/dataset.h"
#include "stage_runtime/data/open_data.h"
#include "stage_runtime/data/target_weight.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/clip_scale.h"
#include "stage_runtime/engine/run/single_process.h"
#include "transport/wire/federation_messages.h"

namespace ecopipe {
namespace {

constexpr std::int64_t kTestBatch = 250;

struct Setup {
    std::string data;
    std::int64_t epochs = 1;
    std::int64_t batch = 64;
    double lr = 0.01;
    double clip = 0;
    std::uint64_t seed = 0;
    std::int64_t evaluation_samples = 0;
};

class Trainee {
  public:
    Result<void> set_up(const Json& header) {
        ECOPIPE_ASSIGN_OR_RETURN(ModelSpec model,
                                 find_model(header.at("model").get<std::string>()));
        const std::string data = header.at("data").get<std::string>();
        if (!splits_ || data != setup_.data) {
            ECOPIPE_ASSIGN_OR_RETURN(splits_,
                                     open_data(data, {{}, 0, header.at("channels").get<int>()}));
        }
        setup_ = {data,
                  header.at("epochs").get<std::int64_t>(),
                  header.at("batch").get<std::int64_t>(),
                  header.at("lr").get<double>(),
                  header.at("clip").get<double>(),
                  header.at("seed").get<std::uint64_t>(),
                  header.at("evaluation_samples").get<std::int64_t>()};
        model.input_shape = splits_->train->sample_shape();
        model.num_classes = splits_->train->num_classes();
        ExecutorOptions options;
        const Json& optimizer = header.at("optimizer");
        options.optimizer.name = optimizer.at("name").get<std::string>();
        options.optimizer.momentum = optimizer.at("momentum").get<double>();
        options.optimizer.weight_decay = optimizer.at("weight_decay").get<double>();
        options.optimizer.proximal_mu = optimizer.at("proximal_mu").get<double>();
        options.seed = setup_.seed;
        ECOPIPE_ASSIGN_OR_RETURN(SingleProcess process, SingleProcess::create(model, options));
        process_.emplace(std::move(process));
        entries_ = entries_of(process_->state(false));
        return {};
    }

    // As a federated cluster does: fresh optimiser state, local epochs in keyed order.
    Result<std::pair<double, std::string>> train(const Json& header, std::string_view bytes) {
        const auto samples = header.at("samples").get<std::vector<std::int64_t>>();
        const auto key = header.at("key").get<std::uint64_t>();
        ECOPIPE_RETURN_IF_ERROR(load(bytes));
        process_->reset_optimizer();
        std::uint64_t step = key;
        double loss = 0;
        for (std::int64_t epoch = 0; epoch < setup_.epochs; ++epoch) {
            const auto order = epoch_order(static_cast<std::int64_t>(samples.size()), key,
                                           static_cast<std::uint64_t>(epoch), true);
            for (std::size_t begin = 0; begin < order.size();
                 begin += static_cast<std::size_t>(setup_.batch)) {
                const std::size_t end =
                    std::min(order.size(), begin + static_cast<std::size_t>(setup_.batch));
                std::vector<std::int64_t> indices;
                for (std::size_t i = begin; i < end; ++i)
                    indices.push_back(samples[static_cast<std::size_t>(order[i])]);
                ECOPIPE_ASSIGN_OR_RETURN(Batch read, splits_->train->batch(indices));
                const std::vector<Batch> batch = {std::move(read)};
                const double divisor = loss_divisor(target_weight({}, batch[0].labels));
                ECOPIPE_ASSIGN_OR_RETURN(const StepTotals totals,
                                         process_->run_step(step++, batch, divisor));
                loss = totals.loss.sum / divisor;
                if (!std::isfinite(loss) || totals.nonfinite_layer >= 0)
                    return fail(ExitCode::kRunFailed,
                                "a virtual cluster's loss is no finite number (a lower client: lr "
                                "may help)");
                process_->commit(setup_.lr, clip_scale(gradient_norm(totals.squared_gradient_norms),
                                                       setup_.clip));
            }
        }
        return std::pair{loss, flatten(process_->state(false))};
    }

    Result<LossTotals> test(std::string_view bytes) {
        ECOPIPE_RETURN_IF_ERROR(load(bytes));
        const Dataset& data = *splits_->test;
        const std::int64_t count = setup_.evaluation_samples > 0
                                       ? std::min(setup_.evaluation_samples, data.size())
                                       : data.size();
        // The same for all: spread evenly over the split, which may be sorted by label.
        LossTotals totals;
        std::vector<std::int64_t> indices;
        for (std::int64_t i = 0; i < count; ++i) {
            indices.push_back(i * data.size() / count);
            if (static_cast<std::int64_t>(indices.size()) < kTestBatch && i + 1 < count) continue;
            ECOPIPE_ASSIGN_OR_RETURN(const Batch batch, data.batch(indices));
            ECOPIPE_RETURN_IF_ERROR(process_->evaluate(batch, totals));
            indices.clear();
        }
        return totals;
    }

  private:
    Result<void> load(std::string_view bytes) { return process_->load(unflatten(entries_, bytes)); }

    Setup setup_;
    std::optional<DataSplits> splits_;
    std::optional<SingleProcess> process_;
    std::vector<TensorEntry> entries_;
};

Result<void> answer(int descriptor, Trainee& trainee, const WorkerMessage& message) {
    switch (message.kind) {
        case WorkerFrame::kSetup: {
            ECOPIPE_RETURN_IF_ERROR(trainee.set_up(message.header));
            return send_worker_message(descriptor, WorkerFrame::kSetup, Json::object(), {});
        }
        case WorkerFrame::kTrain: {
            ECOPIPE_ASSIGN_OR_RETURN(const auto trained,
                                     trainee.train(message.header, message.bytes));
            return send_worker_message(descriptor, WorkerFrame::kTrained, {{"loss", trained.first}},
                                       trained.second);
        }
        case WorkerFrame::kTest: {
            ECOPIPE_ASSIGN_OR_RETURN(const LossTotals totals, trainee.test(message.bytes));
            return send_worker_message(descriptor, WorkerFrame::kTested,
                                       {{"accuracy", totals.accuracy()}, {"loss", totals.loss()}},
                                       {});
        }
        default:
            return fail(ExitCode::kRunFailed, "a worker was asked nonsense");
    }
}

}  // namespace

Result<ExitCode> run_worker(int descriptor) {
    configure_torch(1);
    Trainee trainee;
    return serve_as_worker(descriptor, [&](const WorkerMessage& message) {
        return answer(descriptor, trainee, message);
    });
}

}  // namespace ecopipe
