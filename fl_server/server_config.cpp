#include "fl_server/server_config.h"

#include <fmt/format.h>

#include "core/strict_yaml.h"

namespace ecopipe {

Result<ServerConfig> parse_server_config(std::string_view text, const std::string& source) {
    ECOPIPE_ASSIGN_OR_RETURN(Json json, parse_yaml(text, source));
    Document document(std::move(json), source);
    Fields root = document.root();
    ServerConfig config;
    if (root.has("client")) {
        Fields client = root.object("client");
        const auto integer = [&](const char* key, std::int64_t high) {
            if (client.has(key))
                config.client.push_back({key, std::to_string(client.integer(key, {1, high}))});
        };
        const auto number = [&](const char* key, double high) {
            if (client.has(key))
                config.client.push_back({key, fmt::format("{}", client.number(key, {0, high}))});
        };
        integer("epochs", 1000000);
        integer("batch", 1 << 24);
        integer("micro_batches", 1 << 20);
        if (client.has("optimizer")) {
            const std::string name = client.text("optimizer");
            if (name != "sgd" && name != "adam") client.refuse("optimizer", "expected sgd or adam");
            config.client.push_back({"optimizer", name});
        }
        number("lr", 1e6);
        number("momentum", 1);
        number("weight_decay", 1e6);
        client.no_others();
    }
    root.no_others();
    ECOPIPE_RETURN_IF_ERROR(document.finish());
    return config;
}

}  // namespace ecopipe
