#pragma once
// What a federation knows of each cluster that ever said Hello: who is here, who takes part, at
// which task, how good its updates were, and who is in quarantine. It decides nothing of rounds and
// writes nothing: what is to go into the journal or to the strategy, it returns. Pure.
//
// A cluster is *connected* while the server hears it, and *joined* while the strategy counts on it.
// After a restart who was joined is so still, and nobody is connected yet; who is in quarantine may
// be connected, but does not join.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/strict_json.h"
#include "fl_server/service/client_tests.h"
#include "fl_server/state/journal_rows.h"
#include "fl_server/strategies/strategy.h"
#include "fl_server/view/federation_view.h"

namespace ecopipe {

struct Site {
    ClientFacts facts;  // as the strategy knows them
    bool connected = false;
    bool joined = false;
    double away_since_s = 0;      // of the federation's clock, while not connected
    std::uint64_t task = 0;       // 0: none open
    int group = 0;                // -1: the drop-out group
    SiteRow record;               // as the journal has it
    std::uint64_t staleness = 0;  // of its last update, in versions
    std::uint64_t updates = 0;    // admitted
    bool degraded = false;
    bool tests = true;               // the models that it gets
    ClientTest tested;               // the newest
    std::uint64_t unknown_task = 0;  // the last one it spoke of that is not its own; 0: none
};

class SiteBook {
  public:
    // A cluster that is not known yet gets its record with the first word of it, here as in all
    // that follows. The reference stays good and shows what changes.
    [[nodiscard]] const Site& at(const std::string& cluster);
    [[nodiscard]] std::size_t connected() const;
    [[nodiscard]] bool anyone_joined() const;
    [[nodiscard]] std::vector<std::string> absent() const;  // joined, but not connected; by name

    // ---- coming and going

    // It is here, and `tests` the models that it gets or not. Returns what the strategy is to be
    // told: that it joined, or what has changed, its latency left as it was measured; nothing of a
    // cluster in quarantine.
    [[nodiscard]] std::optional<StrategyEvent> hello(const ClientFacts& facts, bool tests);
    // It is gone as of `now_s`; who was joined is so still, until the strategy is told.
    void leave(const std::string& cluster, double now_s);
    // What it says of itself, likewise.
    [[nodiscard]] std::optional<StrategyEvent> status(const std::string& cluster, double latency_s,
                                                      bool degraded);
    // The server starts: whoever is not connected is away as of `now_s`.
    void start_absences(double now_s);
    // When a cluster last left; 0: never.
    [[nodiscard]] double last_left_s() const { return last_left_s_; }
    // Who has a task, is neither connected nor joined, and has been away for longer than
    // `absence_s`; in the order of their tasks.
    [[nodiscard]] std::vector<std::string> away_for(double now_s, double absence_s) const;

    // ---- tasks

    // What an event of the strategy's says of its cluster; returns the task that it ends, or 0.
    [[nodiscard]] std::uint64_t note(const StrategyEvent& event);
    // It has a task now, and must have had none. Who is in the drop-out group stays there.
    void assign(const std::string& cluster, std::uint64_t task, std::uint32_t group);
    void move(const std::string& cluster, int group);
    // True for a task that is not the one that this was last asked about: each is counted once,
    // however many slices speak of it.
    [[nodiscard]] bool is_news(const std::string& cluster, std::uint64_t unknown_task);

    // ---- what its updates are worth

    // Counts one against it. With `quarantine_after` in a row (0: never) it is in quarantine, and
    // the answer true when it was not before. Its record has changed.
    [[nodiscard]] bool count_rejection(const std::string& cluster, const std::string& reason,
                                       std::uint64_t quarantine_after);
    // An update was good: the rejections before it are no row any more. True when its record has
    // changed.
    [[nodiscard]] bool end_row(const std::string& cluster);
    // False for who is not in quarantine. Its record has changed otherwise.
    [[nodiscard]] bool admit(const std::string& cluster);
    void set_record(const SiteRow& row);
    // The most samples that one update counts for: samples_cap of who is joined, which a restart
    // does not change.
    [[nodiscard]] std::uint64_t samples_most(double weight_max) const;

    // ---- what they find when they test

    // False when none of the updates brings a test that is not older than its cluster's newest.
    [[nodiscard]] bool take_tests(const std::vector<UpdateRow>& updates);
    // Of who is joined and tests or has tested: input of client_verdict.
    [[nodiscard]] std::vector<ClientTest> newest_tests() const;
    // True once: when it is first asked while no cluster, joined or not, tests.
    [[nodiscard]] bool take_untested();

    // All but `last_seen_s` and `base_version`, which others know; by name.
    [[nodiscard]] std::vector<SiteView> view() const;

    // Of the snapshot: `sites`, an entry a cluster by name; TaskBook has its share of each. Records
    // are no part of it: the journal has them. `restore` throws Json::exception for what is missing
    // or of another type.
    void save(Json& snapshot) const;
    void restore(const Json& snapshot);

  private:
    [[nodiscard]] Site& site(const std::string& cluster);
    [[nodiscard]] std::uint64_t end_task(const std::string& cluster);

    std::map<std::string, Site> sites_;
    double last_left_s_ = 0;
    bool told_untested_ = false;
};

}  // namespace ecopipe
