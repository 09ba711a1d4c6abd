#include "fl_server/strategies/roster.h"

#include <algorithm>

#include "core/check.h"

namespace ecopipe {
namespace {

void take_facts(ClientFacts& known, const ClientFacts& told) {
    known.cluster = told.cluster;
    if (told.latency_s > 0) known.latency_s = told.latency_s;
    if (told.samples > 0) known.samples = told.samples;
    if (!told.label_counts.empty()) known.label_counts = told.label_counts;
}

}  // namespace

void Roster::join(const ClientFacts& facts) {
    Client& client = clients_[facts.cluster];
    take_facts(client.facts, facts);
    client.connected = true;
}

void Roster::change(const ClientFacts& facts) {
    if (const auto found = clients_.find(facts.cluster); found != clients_.end())
        take_facts(found->second.facts, facts);
}

void Roster::leave(const std::string& cluster) {
    if (const auto found = clients_.find(cluster); found != clients_.end())
        found->second.connected = false;
}

void Roster::assign(const std::string& cluster, Assignment task) {
    Client& client = clients_.at(cluster);
    ECOPIPE_CHECK(client.connected && !client.task);
    client.task = task;
}

std::optional<Assignment> Roster::finish(const std::string& cluster) {
    const auto found = clients_.find(cluster);
    if (found == clients_.end()) return std::nullopt;
    return std::exchange(found->second.task, std::nullopt);
}

const Roster::Client* Roster::find(const std::string& cluster) const {
    const auto found = clients_.find(cluster);
    return found == clients_.end() ? nullptr : &found->second;
}

bool Roster::idle(const std::string& cluster) const {
    const Client* client = find(cluster);
    return client != nullptr && client->connected && !client->task;
}

std::vector<std::string> Roster::idle() const {
    std::vector<std::string> names;
    for (const auto& [name, client] : clients_)
        if (client.connected && !client.task) names.push_back(name);
    return names;
}

std::size_t Roster::connected() const {
    return static_cast<std::size_t>(
        std::count_if(clients_.begin(), clients_.end(),
                      [](const auto& entry) { return entry.second.connected; }));
}

std::size_t Roster::at_work() const {
    return static_cast<std::size_t>(std::count_if(
        clients_.begin(), clients_.end(),
        [](const auto& entry) { return entry.second.connected && entry.second.task.has_value(); }));
}

Json facts_json(const ClientFacts& facts) {
    return {{"cluster", facts.cluster},
            {"latency_s", facts.latency_s},
            {"samples", facts.samples},
            {"label_counts", facts.label_counts}};
}

ClientFacts facts_from(const Json& json) {
    return {json.at("cluster").get<std::string>(), json.at("latency_s").get<double>(),
            json.at("samples").get<std::uint64_t>(),
            json.at("label_counts").get<std::vector<std::uint64_t>>()};
}

Json Roster::save() const {
    Json out = Json::array();
    for (const auto& [name, client] : clients_) {
        Json one = facts_json(client.facts);
        one["connected"] = client.connected;
        if (client.task)
            one["task"] = {{"group", client.task->group},
                           {"base_version", client.task->base_version}};
        out.push_back(std::move(one));
    }
    return out;
}

void Roster::restore(const Json& state) {
    clients_.clear();
    for (const Json& one : state) {
        Client client;
        client.facts = facts_from(one);
        client.connected = one.at("connected").get<bool>();
        if (one.contains("task"))
            client.task = Assignment{one.at("task").at("group").get<std::uint32_t>(),
                                     one.at("task").at("base_version").get<std::uint64_t>()};
        clients_[client.facts.cluster] = std::move(client);
    }
}

}  // namespace ecopipe
