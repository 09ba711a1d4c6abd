#pragma once
// One federation: the strategy that decides, the aggregator that computes, the journal that
// remembers. It knows no sockets, and its clock is given to it, so that tests drive it and kill it
// at will.
//
// Work happens in turns. Between `begin_turn` and `end_turn` events come in; `end_turn` makes all
// of it durable, and only then may what is to be sent (`take_outgoing`) leave: an acknowledged
// update is on disk and in the journal. After an error the object is of no use: what the journal
// holds is the truth, and opening it again goes on in the same round.
//
// What it knows is kept by four others, which are pure: what its time is (federation_clock.h), who
// the clusters are (site_book.h), which tasks are open (task_book.h), and what the round at hand
// has been like (round_ledger.h). Here it is decided in which order they are told, and what they
// return is written, sent and published.
//
// Over a restart everyone counts as connected, tasks stay open under their numbers, and a pause and
// an end that was asked for still hold. A state has an epoch: another one is drawn when it was
// restored from a backup, and what belongs to another epoch is refused without being held against
// anybody.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/files.h"
#include "fl_server/numbers/aggregator.h"
#include "fl_server/numbers/evaluation.h"
#include "fl_server/service/class_names.h"
#include "fl_server/service/federation_clock.h"
#include "fl_server/service/intake.h"
#include "fl_server/service/limits.h"
#include "fl_server/service/round_ledger.h"
#include "fl_server/service/site_book.h"
#include "fl_server/service/task_book.h"
#include "fl_server/state/journal.h"
#include "fl_server/state/model_store.h"
#include "fl_server/strategies/strategy.h"
#include "fl_server/view/federation_view.h"
#include "transport/wire/federation_messages.h"

namespace ecopipe {

// Tests a model, given as flat bytes, on the server's own data.
using EvaluateModel = std::function<Result<Evaluation>(const std::string& flat)>;

struct FederationOptions {
    std::string state_directory;
    std::uint64_t rounds = 1;  // commits; 0: until told to finish
    ServerLimits limits;
    // What may not change over a restart: the strategy's settings and the model, as a person reads
    // them.
    std::map<std::string, std::string> identity;
    // What may, and a strategy under others of these: it is told what came before the restart.
    std::string changeable;
    std::function<Result<std::unique_ptr<Strategy>>(const std::string& changeable)> strategy_under;
    ClassNames classes;            // none: those of the first cluster that has names
    std::vector<KeyValue> client;  // the configuration that every task carries
    std::uint64_t keep_models = 3;
    bool keep_updates = false;
    bool keep_sources = true;  // AggregatorOptions'; only robust rules need it
    EvaluateModel evaluate;    // none: clusters evaluate
    // Seconds of any clock that never goes back within this process.
    std::function<double()> now_s;
};

namespace outgoing {
struct SendTask {
    std::string cluster;
    Task task;
};
struct SendVerdict {
    std::string cluster;
    Verdict verdict;
};
}  // namespace outgoing
using Outgoing = std::variant<outgoing::SendTask, outgoing::SendVerdict>;

class Federation {
  public:
    // Opens or creates the state. `layout` must outlive it; `initial` is version 0 of a new
    // federation. Errors: kMismatch for a newer journal; kUsage when the state is of another
    // federation, naming what differs; kBadFile for what is damaged.
    [[nodiscard]] static Result<std::unique_ptr<Federation>> open(
        FederationOptions options, const ModelLayout& layout, std::string initial,
        std::unique_ptr<Strategy> strategy);

    [[nodiscard]] Result<void> begin_turn();
    // Makes the turn durable, then does what may follow only then: evaluates a new version and
    // tells the strategy of it.
    [[nodiscard]] Result<void> end_turn();
    [[nodiscard]] std::vector<Outgoing> take_outgoing();

    // The rest, within a turn. A cluster said Hello: `working_on` is the task of this epoch that it
    // has, or 0;
    // `tests`: it tests the models that it gets, unless the server does.
    [[nodiscard]] Result<void> hello(const ClientFacts& facts, std::uint64_t working_on,
                                     bool tests = true);
    // What labels stand for from now on, over restarts too.
    [[nodiscard]] Result<void> adopt_classes(ClassNames classes);
    [[nodiscard]] const ClassNames& classes() const { return classes_; }
    [[nodiscard]] Result<void> left(const std::string& cluster);
    // Another process speaks for the cluster from now on: what the one before had sent of an update
    // is not its own. Its open task stays: it gets it again with its Hello.
    void restarted(const std::string& cluster);
    [[nodiscard]] Result<void> status(const std::string& cluster, const ClusterStatus& status);
    // Nothing when the answer is a verdict, which is among the outgoing.
    [[nodiscard]] Result<std::optional<Intake::Announced>> announce(const std::string& cluster,
                                                                    const UpdateSlice& slice);
    struct Taken {
        bool known = false;    // false: the cluster must announce the slice again
        bool over = false;     // a verdict follows
        bool no_room = false;  // the disk is full: the update must be announced again
        std::size_t left = 0;  // bytes of the slice still to come
    };
    [[nodiscard]] Result<Taken> chunk(const std::string& cluster, const UpdateChunk& chunk,
                                      std::span<const std::byte> bytes);
    void abandon_upload(std::uint64_t task) { intake_.abandon(task); }
    [[nodiscard]] Result<void> tick();  // gives the strategy its Wake when it is due

    // Steering.
    [[nodiscard]] Result<void> pause(bool on);
    [[nodiscard]] Result<void> finish();  // after the round at hand
    // It has ended well, and was told to: started again, it goes on.
    [[nodiscard]] Result<void> end();
    // Errors: kUsage for a cluster that is not quarantined.
    [[nodiscard]] Result<void> admit(const std::string& cluster);

    [[nodiscard]] bool finished() const;
    // Another update would leave less free than `free_space_mib`, those under way counted.
    [[nodiscard]] bool disk_is_low() const;
    [[nodiscard]] std::uint64_t version() const { return aggregator_->state().version; }
    [[nodiscard]] std::uint64_t epoch() const { return epoch_; }
    // A version's flat bytes, while a task still starts from it.
    [[nodiscard]] Result<BlockSourcePtr> model(std::uint64_t version) const;
    // The current version's, whole: sends share it.
    [[nodiscard]] const std::shared_ptr<const std::string>& global() const {
        return aggregator_->state().global;
    }
    [[nodiscard]] std::size_t connected() const { return sites_.connected(); }
    // Whom the strategy counts on and who has not come back since a restart.
    [[nodiscard]] std::vector<std::string> absent() const { return sites_.absent(); }
    [[nodiscard]] FederationView view() const;
    [[nodiscard]] Result<void> backup_to(const std::string& directory);

  private:
    using OwnWork = FederationClock::OwnWork;
    // What is not yet as durable as it will be.
    struct Unsaved {
        bool spool_files = false;  // new ones since the directory was synced
        bool version = false;      // a new one since the newest snapshot
        std::size_t events = 0;    // since that
    };

    Federation(FederationOptions options, const ModelLayout& layout, Journal journal, Spool spool,
               ModelStore models, std::unique_ptr<Strategy> strategy);
    [[nodiscard]] Result<void> start(std::string initial);
    // Returns the last fold that is in the snapshot.
    [[nodiscard]] Result<std::uint64_t> restore_snapshot(const Json& snapshot,
                                                         AggregatorState& state);
    [[nodiscard]] Result<void> restore(std::uint64_t fold_through);
    [[nodiscard]] Result<void> check_identity();
    [[nodiscard]] Result<void> restore_classes();
    [[nodiscard]] Result<void> settle_epoch();
    [[nodiscard]] Result<void> restore_orders();
    // A strategy under the settings of before the restart, when they have changed; else null.
    [[nodiscard]] Result<std::unique_ptr<Strategy>> strategy_before();
    [[nodiscard]] Result<void> change_settings(std::unique_ptr<Strategy> now);
    [[nodiscard]] Result<void> rewrite_rounds();
    // Folds up to `fold_through` are in it; later ones come from the events after it.
    [[nodiscard]] Json snapshot(std::uint64_t fold_through) const;
    [[nodiscard]] Result<void> save_snapshot();

    // Feeds the strategy and obeys it; journals the event unless it is being replayed.
    [[nodiscard]] Result<void> feed(const StrategyEvent& event);
    void note(const StrategyEvent& event);  // what the event itself changes here
    [[nodiscard]] Result<void> obey(const StrategyDecisions& decisions);
    [[nodiscard]] Result<void> assign(const strategy_decision::Assign& assign);
    [[nodiscard]] Result<void> fold(const Fold& fold);
    [[nodiscard]] Result<void> commit(const strategy_decision::Commit& commit);
    // Without the server's own data: remembers what the clusters found, and keeps the best.
    [[nodiscard]] Result<void> judge_by_clients(const std::vector<UpdateRow>& updates);
    [[nodiscard]] Result<void> after_commit();
    [[nodiscard]] Result<void> publish();  // what is served now
    [[nodiscard]] Result<void> delete_finished();
    [[nodiscard]] Result<void> reject(const std::string& cluster, const UpdateSlice& slice,
                                      const std::string& reason);
    // Tells the cluster and counts it; with too many in a row it leaves for the quarantine.
    [[nodiscard]] Result<void> count_rejection(const std::string& cluster, std::uint64_t task,
                                               const std::string& reason);
    [[nodiscard]] Result<void> refuse_unknown(const std::string& cluster, std::uint64_t task);
    // Who has been away for longer than `absence_s` loses its task, and with it the version.
    [[nodiscard]] Result<void> let_go_of_absent();
    [[nodiscard]] Result<void> admit_update(const std::string& cluster,
                                            const CompleteUpdate& update);
    void send_task(std::uint64_t task);
    void send_verdict(const std::string& cluster, std::uint64_t task, bool accepted,
                      const std::string& reason);

    FederationOptions options_;
    const ModelLayout& layout_;
    std::vector<TensorEntry> entries_;  // the layout's, as tasks name them
    std::uint64_t epoch_ = 0;
    ClassNames classes_;

    // What is on disk.
    Journal journal_;
    Spool spool_;
    ModelStore models_;
    std::map<std::string, std::string> kept_files_;  // by name; "" holds the optimiser's moments
    std::optional<LineAppender> rounds_;

    // What decides and computes.
    std::unique_ptr<Strategy> strategy_;
    Intake intake_;
    std::unique_ptr<Aggregator> aggregator_;

    // What is known.
    FederationClock clock_;
    SiteBook sites_;
    TaskBook tasks_;
    RoundLedger ledger_;

    bool in_turn_ = false;
    bool replaying_ = false;
    Unsaved unsaved_;
    std::optional<std::uint64_t> finish_from_;  // it was told to finish after this version
    std::vector<Outgoing> outgoing_;
};

// A state directory's copy, from which a server goes on as from the original. Nobody else may be
// changing `state`; `to` must be empty or missing.
[[nodiscard]] Result<void> backup_state(Journal& journal, const std::string& state,
                                        const std::string& to);

}  // namespace ecopipe
