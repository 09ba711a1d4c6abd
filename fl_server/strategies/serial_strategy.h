#pragma once
// What every strategy shares: the roster, the current version, and the rule that after a Commit
// nothing is assigned or committed before it is durable. A subclass says what an event means to it
// (folds and drops are allowed at any time) and, in `advance`, what follows now (assignments and
// one commit).

#include "fl_server/strategies/roster.h"

namespace ecopipe {

class SerialStrategy : public Strategy {
  public:
    [[nodiscard]] StrategyDecisions on(double now_s, const StrategyEvent& event) final;
    [[nodiscard]] nlohmann::json save() const final;
    [[nodiscard]] Result<void> restore(const nlohmann::json& state) final;

  protected:
    struct Update {
        std::string cluster;
        std::uint64_t sequence = 0;
        std::uint64_t samples = 0;
        std::uint64_t base_version = 0;
        std::uint64_t staleness = 0;     // versions committed since
        std::optional<Assignment> task;  // none: nobody asked for it, or it was given up
    };

    virtual void joined(const std::string&, bool /*new_here*/) {}
    virtual void changed(const std::string&) {}
    virtual void admitted(const Update& update) = 0;
    virtual void failed(const std::string&, const Assignment&) {}
    virtual void committed(const strategy_event::Committed&) {}
    // Never while a commit is under way; returns at once after calling `commit`.
    virtual void advance() = 0;
    // When `advance` wants to be called although nothing happens.
    [[nodiscard]] virtual std::optional<double> next_deadline() const { return std::nullopt; }
    virtual void save_more(Json& state) const = 0;
    virtual void restore_more(const Json& state) = 0;

    void assign(const std::string& cluster, std::uint32_t group);
    void drop(const std::string& cluster, std::uint64_t sequence, std::string reason);
    void move(const std::string& cluster, int from, int to);
    void commit(strategy_decision::Commit commit);

    [[nodiscard]] StrategyDecisions& decisions() { return decisions_; }  // of the present event

    [[nodiscard]] double now() const { return now_s_; }
    [[nodiscard]] std::uint64_t version() const { return version_; }
    [[nodiscard]] bool committing() const { return committing_; }
    [[nodiscard]] const Roster& roster() const { return roster_; }

  private:
    void take(const strategy_event::Joined& event);
    void take(const strategy_event::Changed& event);
    void take(const strategy_event::Left& event);
    void take(const strategy_event::Admitted& event);
    void take(const strategy_event::Failed& event);
    void take(const strategy_event::Committed& event);
    void take(const strategy_event::Tick&) { asked_wake_.reset(); }

    Roster roster_;
    double now_s_ = 0;
    std::uint64_t version_ = 0;
    bool committing_ = false;
    std::optional<double> asked_wake_;
    StrategyDecisions decisions_;
};

}  // namespace ecopipe
