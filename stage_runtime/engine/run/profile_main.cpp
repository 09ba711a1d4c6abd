// ecopipe-profile: measures a model's layers on this device and writes profile.json.
#include <fmt/format.h>

#include <set>

#include "core/command_line.h"
#include "core/files.h"
#include "core/glob.h"
#include "core/host_facts.h"
#include "core/log.h"
#include "domain/limits.h"
#include "stage_runtime/data/dataset.h"
#include "stage_runtime/data/open_data.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/profiler.h"

namespace ecopipe {
namespace {

// What is measured on: samples of the data, or random images of --input.
Result<void> read_samples(const CommandLine& line, ProfileRequest& request, DataSplits& data) {
    ModelSpec& spec = request.spec;
    const int channels = required_channels(spec);
    spec.num_classes = static_cast<int>(line.get_integer("num-classes"));
    if (!line.has("data")) {
        ECOPIPE_ASSIGN_OR_RETURN(spec.input_shape,
                                 parse_image_shape(line.get_text("input"), "--input"));
        // One channel that the model reads as three is repeated by the data readers; measure what
        // they will feed.
        if (channels > 1 && spec.input_shape[0] == 1) spec.input_shape[0] = channels;
        return {};
    }
    if (line.given("input")) return fail(ExitCode::kUsage, "--data and --input exclude each other");
    DataOptions options;
    options.channels = channels;
    if (line.has("resize")) {
        ECOPIPE_ASSIGN_OR_RETURN(const HeightWidth size,
                                 parse_height_width(line.get_text("resize"), "--resize"));
        options.height = size.height;
        options.width = size.width;
    }
    ECOPIPE_ASSIGN_OR_RETURN(data, open_data(line.get_text("data"), options));
    spec.input_shape = data.train->sample_shape();
    if (!line.given("num-classes"))
        spec.num_classes = outputs_wanted(*data.train, line.get_text("loss"));
    request.batch = [&train = *data.train](int samples) { return first_samples(train, samples); };
    return {};
}

Result<ExitCode> run(int argc, const char* const* argv) {
    CommandLine line("ecopipe-profile", "measures a model's layers on this device");
    line.text("model",
              "a zoo name such as lenet5 (a wrong one lists them), a graph's directory or a "
              "TorchScript file");
    line.text("input", "one sample's shape, CxHxW", "1x28x28");
    line.integer("num-classes", "classes of the head", {1, 1000000}, 10);
    line.text("data", "measure on these data, which give --input and --num-classes too");
    line.text("resize", "size of a folder's pictures, HxW");
    line.text("loss", "cross_entropy, mse or bce", "cross_entropy");
    line.text("freeze", "parameters that are not trained, such as 'features.*'");
    line.text("frozen-norm", kFrozenNormHelp, "train");
    line.text("optimizer", kOptimizerNames, "sgd");
    line.text("moments", "float32 or bfloat16, as ecopipe-train will keep them", "float32");
    line.number("momentum", "of sgd; 0 needs no optimiser slot", {0, 1}, 0.9);
    line.text("micro-batch", "sizes to measure", "1,2,4,8,16");
    line.integer("threads", "threads that compute", {1, 1024}, 1);
    line.number("seconds", "time to spend on each size", {0.01, 3600}, 0.5);
    line.text("device-name", "name of this device in the cluster file (default: its host name)");
    line.text("out", "file to write", "profile.json");
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    if (!line.has("model")) return fail(ExitCode::kUsage, "--model is missing");

    ProfileRequest request;
    ECOPIPE_ASSIGN_OR_RETURN(request.spec, find_model(line.get_text("model")));
    ECOPIPE_ASSIGN_OR_RETURN(
        const auto sizes,
        parse_integers(line.get_text("micro-batch"), "--micro-batch", {1, kMicroBatchMax}));
    const std::set<int> ascending(sizes.begin(), sizes.end());
    request.micro_batches.assign(ascending.begin(), ascending.end());
    request.threads = static_cast<int>(line.get_integer("threads"));
    request.device = line.has("device-name") ? line.get_text("device-name") : host_name();
    request.seconds_per_size = line.get_number("seconds");
    ECOPIPE_ASSIGN_OR_RETURN(request.optimizer,
                             parse_optimizer(line.get_text("optimizer"), line.get_text("moments")));
    request.optimizer.momentum = line.get_number("momentum");
    request.loss.name = line.get_text("loss");
    request.spec.freeze = split_patterns(line.get_text("freeze"));
    ECOPIPE_ASSIGN_OR_RETURN(request.spec.frozen_norm_evaluates,
                             parse_frozen_norm(line.get_text("frozen-norm")));
    DataSplits data;
    ECOPIPE_RETURN_IF_ERROR(read_samples(line, request, data));

    configure_torch(request.threads);
    warn_without_fast_blas();
    ECOPIPE_ASSIGN_OR_RETURN(const ModelProfile profile, profile_model(request));
    ECOPIPE_RETURN_IF_ERROR(write_file_atomically(line.get_text("out"), profile_text(profile)));
    double forward = 0;
    double backward = 0;
    for (const LayerProfile& layer : profile.layers) {
        forward += layer.timing.back().forward_ms;
        backward += layer.timing.back().backward_ms;
    }
    fmt::print(
        "{}: {} layers of {} on {}: forward {:.3f} ms, backward {:.3f} ms at micro-batch {}\n",
        line.get_text("out"), profile.layers.size(), profile.model, profile.device, forward,
        backward, request.micro_batches.back());
    return ExitCode::kDone;
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    return ecopipe::run_program("ecopipe-profile", [&] { return ecopipe::run(argc, argv); });
}
