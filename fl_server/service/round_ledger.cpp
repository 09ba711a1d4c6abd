#include "fl_server/service/round_ledger.h"

#include <string_view>
#include <utility>

#include "core/check.h"

namespace ecopipe {
namespace {

constexpr std::string_view kBetweenReasons = "; ";

const char* judge_name(JudgedBy judge) { return judge == JudgedBy::kServer ? "server" : "clients"; }

}  // namespace

void RoundLedger::note_rejected(const std::string& cluster, const std::string& reason) {
    std::string& reasons = rejected_[cluster];
    if (reasons.find(reason) != std::string::npos) return;  // once more says no more
    std::size_t count = reasons.empty() ? 0 : 1;
    for (std::size_t at = reasons.find(kBetweenReasons); at != std::string::npos;
         at = reasons.find(kBetweenReasons, at + 1))
        ++count;
    if (count >= kReasonsMax) return;
    if (count > 0) reasons += kBetweenReasons;
    reasons += reason;
}

void RoundLedger::note_dropped(const std::string& cluster, const std::string& reason) {
    dropped_[cluster] = reason;
}

std::optional<std::uint64_t> RoundLedger::take_verdict(
    const std::vector<ClientTest>& tests, double weight_max,
    const std::function<bool(std::uint64_t version)>& kept) {
    const auto verdict = client_verdict(tests, weight_max);
    if (!verdict || verdict->accuracy <= best_score_ || !kept(verdict->version))
        return std::nullopt;
    best_score_ = verdict->accuracy;
    best_version_ = verdict->version;
    return best_version_;
}

std::string RoundLedger::close(std::uint64_t version, double now_s, const std::string& strategy,
                               const strategy_decision::Commit& commit,
                               const std::vector<UpdateRow>& updates) {
    std::uint64_t samples = 0;
    double weight = 0;
    double loss = 0;
    double accuracy = 0;
    OrderedJson tested = OrderedJson::object();
    OrderedJson capped = OrderedJson::object();
    for (const UpdateRow& update : updates) {
        samples += update.samples;
        if (update.samples < update.claimed)
            capped[update.cluster] = {{"samples", update.claimed}, {"counted", update.samples}};
        if (update.eval_samples == 0) continue;
        const auto n = static_cast<double>(update.eval_samples);
        weight += n;
        loss += n * update.eval_loss;
        accuracy += n * update.eval_accuracy;
        tested[update.cluster] = {{"version", update.base_version},
                                  {"samples", update.eval_samples},
                                  {"accuracy", update.eval_accuracy},
                                  {"loss", update.eval_loss}};
    }
    for (const std::string& cluster : commit.late)
        note_rejected(cluster, "no update before the round's deadline");
    OrderedJson line{
        {"round", version},      {"wall_s", now_s - started_s_}, {"strategy", strategy},
        {"group", commit.group}, {"clusters", commit.clusters},  {"samples", samples},
        {"bytes_in", bytes_in_}, {"rejected", rejected_}};
    if (!capped.empty()) line["capped"] = std::move(capped);
    if (!dropped_.empty()) line["dropped"] = dropped_;
    if (weight > 0) {
        line["client_accuracy"] = accuracy / weight;
        line["client_loss"] = loss / weight;
        line["clients"] = std::move(tested);
    }
    if (judge_ == JudgedBy::kClusters && (best_version_ > 0 || best_score_ >= 0))
        line["best"] = best_version_;
    rejected_.clear();
    dropped_.clear();
    bytes_in_ = 0;
    started_s_ = now_s;
    awaited_ = Awaited{.version = version, .line = line.dump()};
    return awaited_->line;
}

std::optional<std::uint64_t> RoundLedger::awaited() const {
    if (!awaited_) return std::nullopt;
    return awaited_->version;
}

RoundLedger::Told RoundLedger::tell(const std::optional<Evaluation>& evaluation) {
    ECOPIPE_CHECK(awaited_);
    ECOPIPE_CHECK(evaluation.has_value() == (judge_ == JudgedBy::kServer));
    OrderedJson line = OrderedJson::parse(awaited_->line);
    Told told;
    double accuracy = -1;
    if (evaluation) {
        accuracy = evaluation->accuracy;
        line["accuracy"] = evaluation->accuracy;
        line["loss"] = evaluation->loss;
        told.is_best = accuracy > best_score_;
        if (told.is_best) {
            best_score_ = accuracy;
            best_version_ = awaited_->version;
        }
        line["best"] = best_version_;
    } else if (line.contains("client_accuracy")) {
        accuracy = line["client_accuracy"];
    }
    told.round = {.round = awaited_->version,
                  .wall_s = line["wall_s"],
                  .group = line["group"],
                  .clusters = line["clusters"].size(),
                  .samples = line["samples"],
                  .accuracy = accuracy,
                  .loss = line.value("loss", line.value("client_loss", -1.0)),
                  .rejected = line["rejected"].size()};
    told.line = line.dump();
    return told;
}

void RoundLedger::show(const RoundView& round) {
    recent_.push_back(round);
    if (recent_.size() > kRecentMax) recent_.pop_front();
}

void RoundLedger::save(Json& snapshot) const {
    snapshot["rejected"] = rejected_;
    snapshot["dropped"] = dropped_;
    snapshot["bytes_in"] = bytes_in_;
    snapshot["round_started_s"] = started_s_;
    snapshot["best_score"] = best_score_;
    snapshot["best_version"] = best_version_;
    snapshot["best_by"] = judge_name(judge_);
    if (!awaited_) return;
    snapshot["awaiting"] = awaited_->version;
    snapshot["awaiting_line"] = awaited_->line;
}

void RoundLedger::restore(const Json& snapshot) {
    using Reasons = std::map<std::string, std::string>;
    rejected_ = snapshot.at("rejected").get<Reasons>();
    dropped_ = snapshot.at("dropped").get<Reasons>();
    bytes_in_ = snapshot.at("bytes_in");
    started_s_ = snapshot.at("round_started_s");
    best_score_ = snapshot.at("best_score");
    best_version_ = snapshot.at("best_version");
    if (snapshot.at("best_by") != judge_name(judge_)) best_score_ = -1;
    if (!snapshot.contains("awaiting")) return;
    awaited_ = Awaited{.version = snapshot.at("awaiting"), .line = snapshot.at("awaiting_line")};
}

}  // namespace ecopipe
