#pragma once
// Who takes part in a federation, and who is at work.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/strict_json.h"
#include "fl_server/strategies/strategy.h"

namespace ecopipe {

// A task that a cluster has.
struct Assignment {
    std::uint32_t group = 0;
    std::uint64_t base_version = 0;
};

class Roster {
  public:
    struct Client {
        ClientFacts facts;
        bool connected = false;
        std::optional<Assignment> task;
    };

    void join(const ClientFacts& facts);
    void change(const ClientFacts& facts);  // of a known client; what is not told stays
    void leave(const std::string& cluster);
    void assign(const std::string& cluster, Assignment task);
    // The task that is done with, if it had one.
    std::optional<Assignment> finish(const std::string& cluster);

    [[nodiscard]] const std::map<std::string, Client>& clients() const { return clients_; }
    [[nodiscard]] const Client* find(const std::string& cluster) const;
    [[nodiscard]] bool idle(const std::string& cluster) const;  // connected and without a task
    [[nodiscard]] std::vector<std::string> idle() const;        // in name order
    [[nodiscard]] std::size_t connected() const;
    // Tasks of connected clients: what leaves holds no place, though its update may still come.
    [[nodiscard]] std::size_t at_work() const;

    [[nodiscard]] Json save() const;
    void restore(const Json& state);

  private:
    std::map<std::string, Client> clients_;
};

// As JSON, for the state of a strategy.
[[nodiscard]] Json facts_json(const ClientFacts& facts);
[[nodiscard]] ClientFacts facts_from(const Json& json);

}  // namespace ecopipe
