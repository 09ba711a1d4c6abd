// ecopipe-fl-server: the federation's server.
#include <fmt/format.h>

#include "core/command_line.h"
#include "core/files.h"
#include "core/log.h"
#include "fl_server/server.h"
#include "fl_server/server_config.h"
#include "stage_runtime/model/safetensors.h"
#include "stage_runtime/torch_compat.h"
#include "transport/security.h"

namespace ecopipe {
namespace {

constexpr std::size_t kConfigFileBytesMax = 1U << 20;

void declare(CommandLine& line) {
    line.text("command", "run", "run");
    line.positional("command");
    line.text("bind", "address that clusters dial, tcp://ADDRESS:PORT");
    line.text("model", "zoo name or TorchScript file");
    line.text("state", "directory for the global model and rounds.jsonl");
    line.text("strategy", "fedavg", "fedavg");
    line.integer("rounds", "rounds to run", {1, 1000000000}, 10);
    line.text("eval-data", "data set whose test split every global model is tested on");
    line.text("input", "one sample's shape CxHxW, when --eval-data does not tell", "1x28x28");
    line.integer("num-classes", "classes of the head (default: the evaluation data's, else 10)",
                 {1, 1000000});
    line.text("init", "safetensors file to start from");
    line.integer("seed", "of the initial weights", {0, INT64_MAX}, 0);
    line.integer("min-clusters", "a round starts when so many are connected", {1, 1000000}, 2);
    line.number("round-timeout-s", "a round ends after this long with the updates that it has",
                {0.1, 1e9}, 600);
    line.number("peer-timeout-s", "a cluster silent for this long is disconnected", {0.2, 86400},
                10);
    line.text("config", "server.yaml with the clusters' client: settings");
    line.integer("threads", "threads that evaluate", {1, 1024}, 1);
    declare_security(line);
}

Result<void> load_model(const CommandLine& line, ServerOptions& options) {
    ECOPIPE_ASSIGN_OR_RETURN(options.model, find_model(line.get_text("model")));
    int classes = 10;
    const int channels = required_channels(options.model);
    ECOPIPE_ASSIGN_OR_RETURN(options.model.input_shape,
                             parse_image_shape(line.get_text("input"), "--input"));
    if (channels > 1 && options.model.input_shape[0] == 1) options.model.input_shape[0] = channels;
    if (line.has("eval-data")) {
        ECOPIPE_ASSIGN_OR_RETURN(options.eval_data,
                                 open_test_data(line.get_text("eval-data"), {{}, 0, channels}));
        options.model.input_shape = options.eval_data->sample_shape();
        classes = options.eval_data->num_classes();
    }
    options.model.num_classes =
        line.has("num-classes") ? static_cast<int>(line.get_integer("num-classes")) : classes;
    ECOPIPE_ASSIGN_OR_RETURN(options.info, inspect_model(options.model));
    ECOPIPE_ASSIGN_OR_RETURN(
        options.weights,
        initial_weights(options.model, static_cast<std::uint64_t>(line.get_integer("seed"))));
    if (!line.has("init")) return {};
    const std::string init = line.get_text("init");
    ECOPIPE_ASSIGN_OR_RETURN(const TensorMap given, read_safetensors(init));
    return adopt_weights(given, init, {}, options.weights);
}

Result<ExitCode> run(int argc, const char* const* argv) {
    CommandLine line("ecopipe-fl-server", "the server of a federation of clusters");
    declare(line);
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    if (line.get_text("command") != "run")
        return fail(ExitCode::kUsage, fmt::format("expected the command run, found '{}'",
                                                  printable(line.get_text("command"))));
    for (const char* needed : {"bind", "model", "state"})
        if (!line.has(needed))
            return fail(ExitCode::kUsage, fmt::format("--{} is missing", needed));
    ServerOptions options;
    ECOPIPE_ASSIGN_OR_RETURN(options.bind, parse_endpoint(line.get_text("bind"), "--bind"));
    ECOPIPE_ASSIGN_OR_RETURN(const Security security, security_from(line));
    ECOPIPE_RETURN_IF_ERROR(allow_address(options.bind, security, "--bind"));
    options.keys = security.keys;
    options.state_directory = line.get_text("state");
    options.strategy = line.get_text("strategy");
    options.rules.rounds = static_cast<std::uint64_t>(line.get_integer("rounds"));
    options.rules.min_clusters = static_cast<std::size_t>(line.get_integer("min-clusters"));
    options.rules.round_timeout = from_ms(line.get_number("round-timeout-s") * 1000);
    options.peer_timeout_s = line.get_number("peer-timeout-s");
    if (line.has("config")) {
        ECOPIPE_ASSIGN_OR_RETURN(const std::string text,
                                 read_file(line.get_text("config"), kConfigFileBytesMax));
        ECOPIPE_ASSIGN_OR_RETURN(const ServerConfig config,
                                 parse_server_config(text, line.get_text("config")));
        options.client = config.client;
    }
    configure_torch(static_cast<int>(line.get_integer("threads")));
    warn_without_fast_blas();
    ECOPIPE_RETURN_IF_ERROR(load_model(line, options));
    watch_signals();
    return run_server(std::move(options));
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    return ecopipe::run_program("ecopipe-fl-server", [&] { return ecopipe::run(argc, argv); });
}
