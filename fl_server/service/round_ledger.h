#pragma once
// What has happened to a federation since its newest version, which becomes that round's line of
// rounds.jsonl, and which version is the best so far. It publishes nothing and writes nothing: what
// is to go into the journal or under the name of the best, it returns. Pure.
//
// A version is *awaited* from its commit until the strategy is told of it: its line lacks the
// server's own evaluation until then, and keeps its place in the snapshot.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/strict_json.h"
#include "fl_server/numbers/evaluation.h"
#include "fl_server/service/client_tests.h"
#include "fl_server/state/journal_rows.h"
#include "fl_server/strategies/strategy.h"
#include "fl_server/view/federation_view.h"

namespace ecopipe {

// Who says how good a version is: the server, on its own data, or the clusters, each on its own.
// What one says cannot be compared with what the other does.
enum class JudgedBy : std::uint8_t { kServer, kClusters };

class RoundLedger {
  public:
    static constexpr std::size_t kReasonsMax = 8;   // of one cluster in one line
    static constexpr std::size_t kRecentMax = 100;  // rounds that a view shows

    explicit RoundLedger(JudgedBy judge) : judge_(judge) {}

    // ---- since the newest version

    // The round begins at `now_s` of the federation's clock; a version begins the next by itself.
    void start(double now_s) { started_s_ = now_s; }
    // A cluster's update was refused, or will not come. What was said before is not said again.
    void note_rejected(const std::string& cluster, const std::string& reason);
    // Its update was admitted and is not used; the newest reason stands.
    void note_dropped(const std::string& cluster, const std::string& reason);
    void note_bytes(std::size_t bytes) { bytes_in_ += bytes; }  // of updates

    // ---- a version

    // What the clusters find, as client_verdict takes it: the version that is the best from now on,
    // if that is another verdict than the one before. `kept`: a version's model is still there.
    [[nodiscard]] std::optional<std::uint64_t> take_verdict(
        const std::vector<ClientTest>& tests, double weight_max,
        const std::function<bool(std::uint64_t version)>& kept);
    // The round ends with `version`, made as `commit` says of `updates`, at `now_s`: its line
    // without an evaluation of the server's. It is awaited now, and the next round has begun.
    [[nodiscard]] std::string close(std::uint64_t version, double now_s,
                                    const std::string& strategy,
                                    const strategy_decision::Commit& commit,
                                    const std::vector<UpdateRow>& updates);
    [[nodiscard]] std::optional<std::uint64_t> awaited() const;
    struct Told {
        std::string line;  // whole
        RoundView round;
        bool is_best = false;  // on the server's data
    };
    // The awaited version's line with `evaluation`, the server's: given if and only if it judges.
    [[nodiscard]] Told tell(const std::optional<Evaluation>& evaluation);
    // The strategy knows of the awaited version.
    void forget_awaited() { awaited_.reset(); }

    // ---- what is seen

    void show(const RoundView& round);                                             // the newest
    [[nodiscard]] const std::deque<RoundView>& recent() const { return recent_; }  // oldest first
    [[nodiscard]] double best_score() const { return best_score_; }  // accuracy; -1: none yet
    [[nodiscard]] std::uint64_t best_version() const { return best_version_; }

    // Of the snapshot: `rejected`, `dropped`, `bytes_in`, `round_started_s`, `best_score`,
    // `best_version`, `best_by`, and `awaiting` with `awaiting_line` while a version is awaited. A
    // best that another judge found has no score any more: the next that is judged is better.
    // `restore` throws Json::exception for what is missing or of another type.
    void save(Json& snapshot) const;
    void restore(const Json& snapshot);

  private:
    struct Awaited {
        std::uint64_t version = 0;
        std::string line;
    };

    JudgedBy judge_;
    std::map<std::string, std::string> rejected_;  // by cluster, reasons joined
    std::map<std::string, std::string> dropped_;
    std::uint64_t bytes_in_ = 0;
    double started_s_ = 0;
    std::optional<Awaited> awaited_;
    double best_score_ = -1;
    std::uint64_t best_version_ = 0;
    std::deque<RoundView> recent_;
};

}  // namespace ecopipe
