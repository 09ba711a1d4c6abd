#include "fl_server/service/server_config.h"

#include <fmt/format.h>

#include <cstring>

#include "core/strict_yaml.h"
#include "domain/optimizer_spec.h"

namespace ecopipe {
namespace {

constexpr double kNumberMax = 1e15;

void read_strategy(Fields fields, ServerConfig& config) {
    const std::string name = fields.text("name");
    const auto kind = find_strategy(name);
    if (!kind) {
        fields.refuse("name", kind.error().message);
        return;
    }
    for (const StrategySettings& earlier : config.strategies)
        if (earlier.name == name) fields.refuse("name", name + " comes twice");
    StrategySettings settings{name, Parameters((*kind)->rules), {}, 0, {}};
    for (const ParameterRule& rule : (*kind)->rules)
        if (fields.has(rule.key)) settings.told.insert(rule.key);
    settings.parameters.read((*kind)->rules, fields);
    fields.no_others();
    config.strategies.push_back(std::move(settings));
}

void read_robust(Fields fields, RobustSettings& robust) {
    const std::string rule = fields.text("rule", "none");
    if (rule == "median") {
        robust.rule = Combine::Rule::kCoordinateMedian;
    } else if (rule == "trimmed_mean") {
        robust.rule = Combine::Rule::kTrimmedMean;
    } else if (rule == "multi_krum") {
        robust.rule = Combine::Rule::kMultiKrum;
    } else if (rule != "none") {
        fields.refuse("rule", "expected none, median, trimmed_mean or multi_krum");
    }
    robust.trim = fields.number("trim", {0.001, 0.499}, robust.trim);
    robust.byzantine =
        static_cast<std::uint32_t>(fields.integer("byzantine", {0, 1000000}, robust.byzantine));
    robust.keep = static_cast<std::uint32_t>(fields.integer("keep", {0, 1000000}, robust.keep));
    fields.no_others();
}

void read_client(Fields fields, ClientSettings& client) {
    const auto integer = [&](const char* key, std::int64_t high, auto& target) {
        if (fields.has(key)) target = fields.integer(key, {1, high});
    };
    const auto number = [&](const char* key, double high, auto& target) {
        if (fields.has(key)) target = fields.number(key, {0, high});
    };
    integer("epochs", 1000000, client.epochs);
    integer("batch", 1 << 24, client.batch);
    integer("micro_batches", 1 << 20, client.micro_batches);
    if (fields.has("optimizer")) {
        client.optimizer = fields.text("optimizer");
        OptimizerSpec told;
        told.name = *client.optimizer;
        if (!told.known()) fields.refuse("optimizer", fmt::format("expected {}", kOptimizerNames));
    }
    number("lr", 1e6, client.lr);
    number("momentum", 1, client.momentum);
    number("weight_decay", 1e6, client.weight_decay);
    number("mu", 1e6, client.mu);
    number("clip", 1e9, client.clip);
    fields.no_others();
}

void read_limits(Fields fields, ServerLimits& limits) {
    limits.norm_clip = fields.number("norm_clip", {0, kNumberMax}, limits.norm_clip);
    limits.weight_max = fields.number("weight_max", {0, kNumberMax}, limits.weight_max);
    limits.norm_max = fields.number("norm_max", {1e-12, kNumberMax}, limits.norm_max);
    const auto integer = [&](const char* key, std::int64_t low, std::int64_t high,
                             std::uint64_t& target) {
        target = static_cast<std::uint64_t>(
            fields.integer(key, {low, high}, static_cast<std::int64_t>(target)));
    };
    integer("samples_max", 1, std::int64_t{1} << 40, limits.samples_max);
    integer("staleness_max", 0, 1'000'000'000, limits.staleness_max);
    integer("quarantine_after", 0, 1'000'000, limits.quarantine_after);
    integer("absence_s", 0, 1'000'000'000, limits.absence_s);
    integer("clusters_max", 1, 100'000, limits.clusters_max);
    integer("connections_per_address", 1, 100'000, limits.connections_per_address);
    integer("connections_per_s", 1, 100'000, limits.connections_per_s);
    integer("silent_connections", 1, 4096, limits.silent_connections);
    integer("credit_mib", 1, 65'536, limits.credit_mib);
    integer("free_space_mib", 0, 1 << 30, limits.free_space_mib);
    integer("slices_max", 1, 1024, limits.slices_max);
    integer("evaluation_timeout_s", 1, 1 << 20, limits.evaluation_timeout_s);
    fields.no_others();
}

std::string scalar(const OrderedJson& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
}

// Block style: maps by indentation, lists of maps with dashes.
void print(const OrderedJson& value, std::size_t indent, std::string& out) {
    const std::string margin(indent, ' ');
    for (const auto& [key, entry] : value.items()) {
        if (entry.is_object()) {
            out += fmt::format("{}{}:\n", margin, key);
            print(entry, indent + 2, out);
        } else if (entry.is_array() && !entry.empty() && entry.front().is_object()) {
            out += fmt::format("{}{}:\n", margin, key);
            for (const auto& one : entry) {
                std::string item;
                print(one, indent + 4, item);
                item[indent + 2] = '-';
                out += item;
            }
        } else {
            out += fmt::format("{}{}: {}\n", margin, key, scalar(entry));
        }
    }
}

}  // namespace

std::vector<KeyValue> ClientSettings::pairs(double strategy_mu) const {
    std::vector<KeyValue> out;
    const auto add = [&](const char* key, const auto& value) {
        if (value) out.push_back({key, fmt::format("{}", *value)});
    };
    add("epochs", epochs);
    add("batch", batch);
    add("micro_batches", micro_batches);
    add("optimizer", optimizer);
    add("lr", lr);
    add("momentum", momentum);
    add("weight_decay", weight_decay);
    add("mu", mu || strategy_mu == 0 ? mu : std::optional(strategy_mu));
    add("clip", clip);
    return out;
}

Result<StrategySettings> ServerConfig::strategy(const std::string& name) const {
    ECOPIPE_ASSIGN_OR_RETURN(StrategySettings settings, default_settings(name));
    for (const StrategySettings& told : strategies)
        if (told.name == name) settings = told;
    settings.robust = robust;
    return settings;
}

Result<std::map<std::string, std::string>> identity_of(const StrategySettings& settings,
                                                       const ServerLimits& limits) {
    ECOPIPE_ASSIGN_OR_RETURN(const StrategyKind* kind, find_strategy(settings.name));
    const RobustSettings& robust = settings.robust;
    const bool plain = robust.rule == Combine::Rule::kMean;  // then the rest says nothing
    return std::map<std::string, std::string>{
        {"strategy",
         fmt::format("{} {} {}", settings.name, settings.parameters.json(kind->rules, false).dump(),
                     settings.seed)},
        {"robust", plain ? robust.name()
                         : fmt::format("{} (trim {}, byzantine {}, keep {})", robust.name(),
                                       robust.trim, robust.byzantine, robust.keep)},
        {"norm_clip", fmt::format("{}", limits.norm_clip)}};
}

Result<std::string> changeable_of(const StrategySettings& settings) {
    ECOPIPE_ASSIGN_OR_RETURN(const StrategyKind* kind, find_strategy(settings.name));
    return settings.parameters.json(kind->rules, true).dump();
}

Result<std::unique_ptr<Strategy>> strategy_under(StrategySettings settings,
                                                 const std::string& changeable) {
    ECOPIPE_ASSIGN_OR_RETURN(const StrategyKind* kind, find_strategy(settings.name));
    ECOPIPE_ASSIGN_OR_RETURN(const Json values, parse_json(changeable, "the journal's settings"));
    for (const ParameterRule& rule : kind->rules) {
        if (!rule.may_change || !values.is_object() || !values.contains(rule.key)) continue;
        const Json& value = values[rule.key];
        const bool fits = rule.kind == ParameterRule::Kind::kInteger ? value.is_number_integer()
                                                                     : value.is_number();
        if (!fits || value.get<double>() < rule.low || value.get<double>() > rule.high)
            return fail(ExitCode::kBadFile, fmt::format("the journal's settings: {} cannot be {}",
                                                        rule.key, shown(value)));
        settings.parameters.set(rule.key, value);
    }
    return make_strategy(settings);
}

Result<ServerConfig> parse_server_config(std::string_view text, const std::string& source,
                                         const ServerConfig& defaults) {
    ECOPIPE_ASSIGN_OR_RETURN(Json json, parse_yaml(text, source));
    const bool several =
        json.is_object() && json.contains("strategy") && json["strategy"].is_array();
    Document document(std::move(json), source);
    Fields root = document.root();
    ServerConfig config = defaults;
    if (several) {
        for (Fields& one : root.objects("strategy")) read_strategy(std::move(one), config);
    } else if (root.has("strategy")) {
        read_strategy(root.object("strategy"), config);
    }
    if (root.has("robust")) read_robust(root.object("robust"), config.robust);
    if (root.has("client")) read_client(root.object("client"), config.client_settings);
    if (root.has("simulation")) read_simulation(root.object("simulation"), config.simulation);
    if (root.has("classes")) {
        auto classes = ClassNames::of(root.texts("classes"));
        if (!classes)
            root.refuse("classes", classes.error().message.substr(std::strlen("classes: ")));
        else if (!classes->known())
            root.refuse("classes", "expected at least one name");
        else
            config.classes = std::move(*classes);
    }
    if (root.has("limits")) read_limits(root.object("limits"), config.limits);
    root.no_others();
    ECOPIPE_RETURN_IF_ERROR(document.finish());
    config.client = config.client_settings.pairs();
    return config;
}

Result<std::string> config_text(const ServerConfig& config, const std::vector<std::string>& names) {
    std::string out = "strategy:\n";
    double mu = 0;
    for (const std::string& name : names) {
        ECOPIPE_ASSIGN_OR_RETURN(const StrategyKind* kind, find_strategy(name));
        ECOPIPE_ASSIGN_OR_RETURN(const StrategySettings settings, config.strategy(name));
        mu = kind->client_mu;
        out += fmt::format("  - name: {}  # {}\n", name, kind->meaning);
        for (const ParameterRule& rule : kind->rules)
            out +=
                fmt::format("    {}: {}  # {}\n", rule.key,
                            scalar(settings.parameters.json(kind->rules)[rule.key]), rule.meaning);
    }
    const RobustSettings& robust = config.robust;
    const ServerLimits& limits = config.limits;
    OrderedJson rest;
    rest["robust"] = {{"rule", robust.name()},
                      {"trim", robust.trim},
                      {"byzantine", robust.byzantine},
                      {"keep", robust.keep}};
    OrderedJson client = OrderedJson::object();
    for (const KeyValue& pair : config.client_settings.pairs(names.size() == 1 ? mu : 0))
        client[pair.key] = pair.value;
    if (!client.empty()) rest["client"] = client;
    if (config.classes.known()) rest["classes"] = OrderedJson(config.classes.names);
    rest["simulation"] = simulation_json(config.simulation);
    rest["limits"] = {{"norm_clip", limits.norm_clip},
                      {"norm_max", limits.norm_max},
                      {"weight_max", limits.weight_max},
                      {"samples_max", limits.samples_max},
                      {"staleness_max", limits.staleness_max},
                      {"quarantine_after", limits.quarantine_after},
                      {"absence_s", limits.absence_s},
                      {"clusters_max", limits.clusters_max},
                      {"connections_per_address", limits.connections_per_address},
                      {"connections_per_s", limits.connections_per_s},
                      {"silent_connections", limits.silent_connections},
                      {"credit_mib", limits.credit_mib},
                      {"free_space_mib", limits.free_space_mib},
                      {"slices_max", limits.slices_max},
                      {"evaluation_timeout_s", limits.evaluation_timeout_s}};
    print(rest, 0, out);
    return out;
}

}  // namespace ecopipe
