// ecopipe-fl-server: the federation's server, and what its operator asks of it.
#include <fmt/format.h>

#include <algorithm>

#include "core/command_line.h"
#include "core/files.h"
#include "core/large_memory.h"
#include "core/log.h"
#include "core/open_files.h"
#include "fl_server/service/operator_commands.h"
#include "fl_server/service/server.h"
#include "fl_server/service/server_config.h"
#include "fl_server/strategies/registry.h"
#include "fl_server/workers/model_process.h"
#include "transport/security/security.h"
#include "transport/web/web_server.h"

namespace ecopipe {
namespace {

constexpr std::size_t kConfigFileBytesMax = 1U << 20;

void declare(CommandLine& line) {
    line.text("command", "run, status, pause, resume, finish, admit, backup or replay", "run");
    line.positional("command");
    line.text("bind", "address that clusters dial, tcp://ADDRESS:PORT");
    line.text("model",
              "a zoo name such as lenet5 (a wrong one lists them), a graph's directory or a "
              "TorchScript file");
    line.text("state", "directory of the federation: it goes on from there");
    line.text("strategy", "fedavg, fedprox, fedasync, eco-fl, ...", "fedavg");
    line.integer("rounds", "versions to make; 0: until told to finish", {0, 1000000000}, 10);
    line.text("eval-data", "data set whose test split every global model is tested on");
    line.text("input", "one sample's shape CxHxW, when --eval-data does not tell", "1x28x28");
    line.integer("num-classes", "classes of the head (default: the evaluation data's, else 10)",
                 {1, 1000000});
    line.text("init", "safetensors file to start from");
    line.integer("seed", "of the initial weights and of selections", {0, INT64_MAX}, 0);
    line.integer("min-clusters", "a round starts when so many are connected", {1, 1000000}, 2);
    line.number("round-timeout-s", "a round ends after this long with the updates that it has",
                {0.1, 1e9}, 600);
    line.number("peer-timeout-s", "a cluster silent for this long is disconnected", {0.2, 86400},
                10);
    line.text("config", "server.yaml with strategy:, client:, classes: and limits:");
    line.text("metrics-bind", "ADDRESS:PORT of the Prometheus text, /metrics");
    line.text(
        "web",
        "show the federation as a page on this address, such as 127.0.0.1:8080 (port 0: any)");
    line.integer("keep-models", "older versions that stay on disk", {0, 1000000000}, 3);
    line.flag("keep-updates", "keep every update, for replay");
    line.text("cluster", "with admit: the cluster to take out of quarantine");
    line.text("to", "with backup: an empty directory");
    line.flag("json", "with status: as JSON");
    line.flag("print-config", "print server.yaml with every effective value, and end");
    line.integer("threads", "threads that evaluate", {1, 1024}, 1);
    declare_security(line);
}

Result<ModelSetup> model_setup(const CommandLine& line) {
    ModelSetup request;
    request.model = line.get_text("model");
    ECOPIPE_ASSIGN_OR_RETURN(request.input_shape,
                             parse_image_shape(line.get_text("input"), "--input"));
    if (line.has("num-classes"))
        request.num_classes = static_cast<int>(line.get_integer("num-classes"));
    if (line.has("eval-data")) request.eval_data = line.get_text("eval-data");
    if (line.has("init")) request.init = line.get_text("init");
    request.seed = static_cast<std::uint64_t>(line.get_integer("seed"));
    request.threads = static_cast<int>(line.get_integer("threads"));
    request.log_level = line.get_text("log-level");
    return request;
}

Result<ServerConfig> read_config(const CommandLine& line) {
    if (!line.has("config")) return ServerConfig{};
    ECOPIPE_ASSIGN_OR_RETURN(const std::string text,
                             read_file(line.get_text("config"), kConfigFileBytesMax));
    return parse_server_config(text, line.get_text("config"));
}

// What the flags say, a flag's default only where server.yaml says nothing.
Result<StrategySettings> strategy_settings(const CommandLine& line, const ServerConfig& config) {
    const bool named = line.given("strategy") || config.strategies.empty();
    ECOPIPE_ASSIGN_OR_RETURN(
        StrategySettings settings,
        config.strategy(named ? line.get_text("strategy") : config.strategies.front().name));
    settings.seed = static_cast<std::uint64_t>(line.get_integer("seed"));
    const auto flag_wins = [&](const char* flag, const char* key) {
        return settings.parameters.has(key) && (line.given(flag) || !settings.told.contains(key));
    };
    if (flag_wins("min-clusters", "min_clients"))
        settings.parameters.set("min_clients", line.get_integer("min-clusters"));
    if (flag_wins("round-timeout-s", "deadline_s"))
        settings.parameters.set("deadline_s", line.get_number("round-timeout-s"));
    return settings;
}

Result<void> configure(const CommandLine& line, ServerOptions& options) {
    FederationOptions& federation = options.federation;
    federation.state_directory = line.get_text("state");
    federation.rounds = static_cast<std::uint64_t>(line.get_integer("rounds"));
    federation.keep_models = static_cast<std::uint64_t>(line.get_integer("keep-models"));
    federation.keep_updates = line.get_flag("keep-updates");
    options.peer_timeout_s = line.get_number("peer-timeout-s");
    ECOPIPE_ASSIGN_OR_RETURN(const ServerConfig config, read_config(line));
    ECOPIPE_ASSIGN_OR_RETURN(const StrategySettings settings, strategy_settings(line, config));
    ECOPIPE_ASSIGN_OR_RETURN(const StrategyKind* kind, find_strategy(settings.name));
    federation.client = config.client_settings.pairs(kind->client_mu);
    federation.limits = config.limits;
    federation.classes = config.classes;
    federation.keep_sources = settings.robust.rule != Combine::Rule::kMean;
    ECOPIPE_ASSIGN_OR_RETURN(federation.identity, identity_of(settings, federation.limits));
    ECOPIPE_ASSIGN_OR_RETURN(federation.changeable, changeable_of(settings));
    federation.strategy_under = [settings](const std::string& changeable) {
        return strategy_under(settings, changeable);
    };
    ECOPIPE_ASSIGN_OR_RETURN(options.strategy, make_strategy(settings));
    if (line.has("web")) {
        ECOPIPE_ASSIGN_OR_RETURN(
            options.web, parse_web_address(line.get_text("web"), line.get_flag("insecure")));
        options.title = fmt::format("a federation of {}", printable(line.get_text("model")));
    }
    if (!line.has("metrics-bind")) return {};
    ECOPIPE_ASSIGN_OR_RETURN(
        options.metrics,
        parse_endpoint("tcp://" + line.get_text("metrics-bind"), "--metrics-bind"));
    return allow_address(*options.metrics, Security{nullptr, line.get_flag("insecure")},
                         "--metrics-bind");
}

Result<ExitCode> run(int argc, const char* const* argv) {
    CommandLine line("ecopipe-fl-server", "the server of a federation of clusters");
    declare(line);
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    const std::string word = line.get_text("command");
    const auto need = [&](std::initializer_list<const char*> flags) -> Result<void> {
        for (const char* flag : flags)
            if (!line.has(flag))
                return fail(ExitCode::kUsage, fmt::format("--{} is missing", flag));
        return {};
    };
    if (is_operator_command(word)) {
        ECOPIPE_RETURN_IF_ERROR(need({"state"}));
        if (word == "admit") ECOPIPE_RETURN_IF_ERROR(need({"cluster"}));
        if (word == "backup") ECOPIPE_RETURN_IF_ERROR(need({"to"}));
        return run_operator_command({word, line.get_text("state"), line.get_text("cluster"),
                                     line.get_text("to"), line.get_flag("json")});
    }
    if (word != "run")
        return fail(ExitCode::kUsage,
                    fmt::format("expected the command run, found '{}'", printable(word)));
    if (line.get_flag("print-config")) {
        ECOPIPE_ASSIGN_OR_RETURN(ServerConfig config, read_config(line));
        ECOPIPE_ASSIGN_OR_RETURN(const StrategySettings settings, strategy_settings(line, config));
        config.strategies = {settings};
        ECOPIPE_ASSIGN_OR_RETURN(const std::string text, config_text(config, {settings.name}));
        fmt::print("{}", text);
        return ExitCode::kDone;
    }
    ECOPIPE_RETURN_IF_ERROR(need({"bind", "model", "state"}));
    ServerOptions options;
    ECOPIPE_ASSIGN_OR_RETURN(options.bind, parse_endpoint(line.get_text("bind"), "--bind"));
    ECOPIPE_ASSIGN_OR_RETURN(const Security security, security_from(line));
    ECOPIPE_RETURN_IF_ERROR(allow_address(options.bind, security, "--bind"));
    options.keys = security.keys;
    ECOPIPE_RETURN_IF_ERROR(configure(line, options));
    raise_open_files();  // a thousand clusters are a thousand sockets
    ECOPIPE_ASSIGN_OR_RETURN(ModelSetup request, model_setup(line));
    request.classes = options.federation.classes.names;
    ECOPIPE_ASSIGN_OR_RETURN(
        ModelProcess model,
        ModelProcess::start(request, options.federation.limits.evaluation_timeout_s));
    options.model_id = model.model_id();
    options.federation.identity["model"] = options.model_id;
    ECOPIPE_ASSIGN_OR_RETURN(options.federation.classes, ClassNames::of(model.classes()));
    if (model.evaluates())
        options.federation.evaluate = [&model](const std::string& flat) {
            return model.evaluate(flat);
        };
    else
        options.federation.client.push_back({"evaluate", "1"});
    return_large_memory();  // the chunks of a thousand clusters
    watch_signals();
    return run_server(std::move(options), model.layout(), model.take_initial());
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    return ecopipe::run_program("ecopipe-fl-server", [&] { return ecopipe::run(argc, argv); });
}
