// How a Federation begins, and how it goes on where a crash or a stop left it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "core/files.h"
#include "core/log.h"
#include "fl_server/service/federation.h"
#include "fl_server/strategies/decision_json.h"

namespace ecopipe {
Result<std::unique_ptr<Federation>> Federation::open(FederationOptions options,
                                                     const ModelLayout& layout, std::string initial,
                                                     std::unique_ptr<Strategy> strategy) {
    const std::string directory = options.state_directory;
    ECOPIPE_RETURN_IF_ERROR(make_directories(directory));
    if (!std::filesystem::exists(directory + "/journal.sqlite") &&
        std::filesystem::exists(directory + "/rounds.jsonl"))
        return fail(
            ExitCode::kUsage,
            fmt::format("--state {}: holds rounds without a journal; give another directory",
                        directory));
    ECOPIPE_ASSIGN_OR_RETURN(Journal journal, Journal::open(directory + "/journal.sqlite"));
    ECOPIPE_ASSIGN_OR_RETURN(Spool spool, Spool::open(directory + "/spool"));
    ECOPIPE_ASSIGN_OR_RETURN(ModelStore models, ModelStore::open(directory, layout));
    std::unique_ptr<Federation> federation(new Federation(std::move(options), layout,
                                                          std::move(journal), std::move(spool),
                                                          std::move(models), std::move(strategy)));
    ECOPIPE_RETURN_IF_ERROR(federation->start(std::move(initial)));
    return federation;
}

Result<void> Federation::check_identity() {
    ECOPIPE_ASSIGN_OR_RETURN(const auto layout, journal_.meta("layout"));
    if (layout && *layout != layout_json(layout_).dump())
        return fail(ExitCode::kUsage,
                    fmt::format("--state {}: its model has other tensors; give another directory",
                                options_.state_directory));
    for (const auto& [key, value] : options_.identity) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto known, journal_.meta("identity:" + key));
        if (known && *known != value)
            return fail(ExitCode::kUsage,
                        fmt::format("--state {}: its {} is {}, found {}; give another directory",
                                    options_.state_directory, key, *known, value));
    }
    return {};
}

// A backup of ours has no epoch, and a file that was copied is another one than it says: another
// inode, or of another birth, since numbers of inodes are used again.
Result<void> Federation::settle_epoch() {
    struct statx facts{};
    const std::string path = options_.state_directory + "/journal.sqlite";
    if (::statx(AT_FDCWD, path.c_str(), 0, STATX_INO | STATX_BTIME, &facts) != 0)
        return fail(ExitCode::kRunFailed,
                    fmt::format("{}: cannot look at it: {}", path, std::strerror(errno)));
    const std::string file =
        fmt::format("{}:{}.{:09}", facts.stx_ino, facts.stx_btime.tv_sec, facts.stx_btime.tv_nsec);
    ECOPIPE_ASSIGN_OR_RETURN(const auto known, journal_.meta("epoch"));
    ECOPIPE_ASSIGN_OR_RETURN(const auto known_file, journal_.meta("file"));
    if (known && known_file == file) {
        epoch_ = std::strtoull(known->c_str(), nullptr, 10);
        return {};
    }
    std::random_device device;  // an identity only
    epoch_ = (std::uint64_t{device()} << 32) | device() | 1U;
    ECOPIPE_RETURN_IF_ERROR(journal_.set_meta("epoch", std::to_string(epoch_)));
    return journal_.set_meta("file", file);
}

// What the operator had said before the restart.
Result<void> Federation::restore_orders() {
    ECOPIPE_ASSIGN_OR_RETURN(const auto paused, journal_.meta("paused"));
    clock_.pause(paused == "1");
    if (clock_.paused())
        log_warn("{}: it is paused, as before the restart", options_.state_directory);
    ECOPIPE_ASSIGN_OR_RETURN(const auto from, journal_.meta("finish_from"));
    if (!from) return {};
    finish_from_ = std::strtoull(from->c_str(), nullptr, 10);
    log_warn("{}: it ends after the round at hand, as was said before the restart",
             options_.state_directory);
    return {};
}

Result<std::unique_ptr<Strategy>> Federation::strategy_before() {
    ECOPIPE_ASSIGN_OR_RETURN(const auto known, journal_.meta("changeable"));
    if (!known || *known == options_.changeable || !options_.strategy_under)
        return std::unique_ptr<Strategy>();
    log_info("{}: its settings go from {} to {}", options_.state_directory, printable(*known),
             options_.changeable);
    return options_.strategy_under(*known);
}

// From here on: what the journal holds of before is in the snapshot.
Result<void> Federation::change_settings(std::unique_ptr<Strategy> now) {
    ECOPIPE_RETURN_IF_ERROR(now->restore(strategy_->save()));
    strategy_ = std::move(now);
    clock_.wake_at(clock_.now_s());  // a deadline may have come nearer
    ECOPIPE_RETURN_IF_ERROR(journal_.begin());
    ECOPIPE_RETURN_IF_ERROR(save_snapshot());
    ECOPIPE_RETURN_IF_ERROR(journal_.set_meta("changeable", options_.changeable));
    return journal_.commit();
}

// Those of before, which what is given now may not contradict.
Result<void> Federation::restore_classes() {
    ECOPIPE_ASSIGN_OR_RETURN(const auto text, journal_.meta("classes"));
    classes_ = options_.classes;
    if (!text) return {};
    ECOPIPE_ASSIGN_OR_RETURN(const Json json, parse_json(*text, "journal"));
    ECOPIPE_ASSIGN_OR_RETURN(ClassNames known, class_names_from(json));
    if (classes_.known() && classes_.sha256 != known.sha256)
        return fail(ExitCode::kUsage,
                    fmt::format("--state {}: its classes are {}, found {}; give another directory",
                                options_.state_directory, known.text(), classes_.text()));
    if (classes_.names.empty()) classes_ = std::move(known);
    return {};
}

Result<void> Federation::adopt_classes(ClassNames classes) {
    classes_ = std::move(classes);
    return journal_.set_meta("classes", class_names_json(classes_).dump());
}

Result<void> Federation::start(std::string initial) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto snapshot, journal_.snapshot());
    ECOPIPE_RETURN_IF_ERROR(check_identity());
    ECOPIPE_RETURN_IF_ERROR(restore_classes());
    ECOPIPE_RETURN_IF_ERROR(settle_epoch());
    if (options_.classes.known()) ECOPIPE_RETURN_IF_ERROR(adopt_classes(options_.classes));
    AggregatorState state;
    std::uint64_t fold_through = 0;
    std::unique_ptr<Strategy> changed;
    if (snapshot) {
        ECOPIPE_ASSIGN_OR_RETURN(changed, strategy_before());
        if (changed) std::swap(changed, strategy_);
        ECOPIPE_ASSIGN_OR_RETURN(fold_through, restore_snapshot(*snapshot, state));
    } else {
        ECOPIPE_RETURN_IF_ERROR(models_.write(0, initial));
        ECOPIPE_RETURN_IF_ERROR(models_.publish(0));
        state.global = std::make_shared<const std::string>(std::move(initial));
    }
    tasks_.set_sha256(state.version, sha256_hex(*state.global));
    aggregator_ = std::make_unique<Aggregator>(
        layout_, std::move(state), [this](std::uint64_t v) { return models_.source(v); },
        AggregatorOptions{.norm_clip = options_.limits.norm_clip,
                          .threads = 1,
                          .keep_sources = options_.keep_sources});
    if (snapshot) {
        ECOPIPE_RETURN_IF_ERROR(restore(fold_through));
        return changed ? change_settings(std::move(changed)) : Result<void>();
    }
    ECOPIPE_RETURN_IF_ERROR(journal_.begin());
    for (const auto& [key, value] : options_.identity)
        ECOPIPE_RETURN_IF_ERROR(journal_.set_meta("identity:" + key, value));
    ECOPIPE_RETURN_IF_ERROR(journal_.set_meta("changeable", options_.changeable));
    ECOPIPE_RETURN_IF_ERROR(journal_.set_meta("layout", layout_json(layout_).dump()));
    ECOPIPE_RETURN_IF_ERROR(journal_.add_version({.version = 0,
                                                  .group = 0,
                                                  .sha256 = tasks_.sha256_of(0),
                                                  .recipe = Json::object(),
                                                  .fold_through = 0,
                                                  .line = ""}));
    ECOPIPE_RETURN_IF_ERROR(journal_.set_snapshot(this->snapshot(0)));
    ECOPIPE_RETURN_IF_ERROR(journal_.commit());
    ECOPIPE_ASSIGN_OR_RETURN(LineAppender log,
                             LineAppender::open(options_.state_directory + "/rounds.jsonl"));
    rounds_.emplace(std::move(log));
    return {};
}

Json Federation::snapshot(std::uint64_t fold_through) const {
    Json json{{"version", version()},
              {"fold_through", fold_through},
              {"kept", kept_files_},
              {"strategy", strategy_->save()}};
    clock_.save(json);
    sites_.save(json);
    tasks_.save(json);
    ledger_.save(json);
    return json;
}

Result<std::uint64_t> Federation::restore_snapshot(const Json& json, AggregatorState& state) {
    std::uint64_t fold_through = 0;
    try {
        state.version = json.at("version");
        fold_through = json.at("fold_through");
        clock_.restore(json);
        sites_.restore(json);
        tasks_.restore(json);
        ledger_.restore(json);
        kept_files_ = json.at("kept").get<std::map<std::string, std::string>>();
        ECOPIPE_RETURN_IF_ERROR(strategy_->restore(json.at("strategy")));
    } catch (const Json::exception& error) {
        return fail(ExitCode::kBadFile,
                    fmt::format("{}/journal.sqlite: its snapshot: {}", options_.state_directory,
                                one_line(error.what())));
    }
    ECOPIPE_ASSIGN_OR_RETURN(state.global, models_.load(state.version));
    for (const auto& [name, file] : kept_files_) {
        ECOPIPE_ASSIGN_OR_RETURN(auto bytes, models_.load_kept(file));
        if (name.empty())
            state.moments = std::move(bytes);
        else
            state.stored[name] = std::move(bytes);
    }
    return fold_through;
}

// The slots' sums are rebuilt from the updates that were folded before the snapshot; then the
// events since it are fed again, whose folds and tasks come out as they did.
Result<void> Federation::restore(std::uint64_t fold_through) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto sha256, journal_.sha256_of(version()));
    if (sha256 != tasks_.sha256_of(version()))
        return fail(ExitCode::kBadFile,
                    fmt::format("{}/models/{}.safetensors: its hash is not the journal's",
                                options_.state_directory, version()));
    for (const std::uint64_t base : tasks_.base_versions()) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto known, journal_.sha256_of(base));
        tasks_.set_sha256(base, known.value_or(""));
    }
    ECOPIPE_ASSIGN_OR_RETURN(const auto sites, journal_.sites());
    for (const SiteRow& row : sites) sites_.set_record(row);

    ECOPIPE_ASSIGN_OR_RETURN(const auto events, journal_.events());
    ECOPIPE_ASSIGN_OR_RETURN(const auto folds, journal_.open_folds(fold_through));
    std::vector<std::pair<double, StrategyEvent>> replay;
    for (const Journal::Event& event : events) {
        ECOPIPE_ASSIGN_OR_RETURN(StrategyEvent parsed, event_from(event.body));
        replay.emplace_back(event.at_s, std::move(parsed));
    }
    for (const FoldRow& row : folds)
        ECOPIPE_RETURN_IF_ERROR(fold({.cluster = row.cluster,
                                      .sequence = row.task,
                                      .slot = row.slot,
                                      .weight = row.weight}));
    ECOPIPE_RETURN_IF_ERROR(journal_.begin());
    replaying_ = true;
    for (const auto& [at_s, event] : replay) {
        clock_.catch_up(at_s);
        ECOPIPE_RETURN_IF_ERROR(feed(event));
    }
    replaying_ = false;
    unsaved_.events = events.size();
    ECOPIPE_RETURN_IF_ERROR(journal_.commit());

    // Files that no row speaks of are of transactions that never were.
    ECOPIPE_RETURN_IF_ERROR(
        spool_.remove_unless([this](std::uint64_t task, const std::string& file) -> Result<bool> {
            ECOPIPE_ASSIGN_OR_RETURN(const auto row, journal_.update(task));
            return row && (" " + row->spool + " ").find(" " + file + " ") != std::string::npos;
        }));
    sites_.start_absences(clock_.now_s());
    ECOPIPE_RETURN_IF_ERROR(restore_orders());
    ECOPIPE_RETURN_IF_ERROR(rewrite_rounds());
    log_info("{} goes on after version {}, {} tasks open", options_.state_directory, version(),
             tasks_.all().size());
    if (ledger_.awaited()) return after_commit();
    return publish();
}

// rounds.jsonl has a line a version; a crash may have taken the last ones, or cut one short. What
// is there and right stays; a history of any length takes the memory of one line.
Result<void> Federation::rewrite_rounds() {
    const std::string path = options_.state_directory + "/rounds.jsonl";
    const auto is_told = [this](std::uint64_t version) {
        return !ledger_.awaited() || version < *ledger_.awaited();
    };
    std::ifstream file(path, std::ios::binary);
    std::uintmax_t right = 0;  // bytes
    std::uint64_t next = 1;    // the first version whose line is not there
    ECOPIPE_RETURN_IF_ERROR(
        journal_.each_line(1, [&](std::uint64_t version, const std::string& line) -> Result<bool> {
            std::string there(line.size() + 1, '\0');
            file.read(there.data(), static_cast<std::streamsize>(there.size()));
            if (!is_told(version) || !file || there != line + "\n") return false;
            right += there.size();
            next = version + 1;
            return true;
        }));
    ECOPIPE_ASSIGN_OR_RETURN(LineAppender log, LineAppender::open(path));
    if (::truncate(path.c_str(), static_cast<off_t>(right)) != 0)
        return fail(ExitCode::kRunFailed, fmt::format("{}: cannot cut it to its right lines: {}",
                                                      path, std::strerror(errno)));
    const auto told = journal_.each_line(
        next, [&](std::uint64_t version, const std::string& line) -> Result<bool> {
            if (!is_told(version)) return false;
            ECOPIPE_RETURN_IF_ERROR(log.append(line));
            return true;
        });
    if (!told) return told;
    rounds_.emplace(std::move(log));
    return {};
}

Result<void> Federation::backup_to(const std::string& directory) {
    const OwnWork working(clock_);
    return backup_state(journal_, options_.state_directory, directory);
}

Result<void> backup_state(Journal& journal, const std::string& state, const std::string& to) {
    ECOPIPE_RETURN_IF_ERROR(make_directories(to));
    if (!std::filesystem::is_empty(to))
        return fail(ExitCode::kUsage, fmt::format("{}: is not empty", to));
    try {
        for (const char* part : {"models", "kept", "spool"})
            std::filesystem::copy(fmt::format("{}/{}", state, part),
                                  fmt::format("{}/{}", to, part));
        // Published when it was made and never again, unlike the newest.
        if (const std::string best = state + "/best.safetensors"; std::filesystem::exists(best))
            std::filesystem::copy_file(best, to + "/best.safetensors");
    } catch (const std::filesystem::filesystem_error& error) {
        return fail(ExitCode::kRunFailed, one_line(error.what()));
    }
    return journal.backup_to(to + "/journal.sqlite", {"epoch", "paused", "finish_from"});
}

}  // namespace ecopipe
