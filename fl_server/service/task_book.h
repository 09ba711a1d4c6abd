#pragma once
// Which tasks of a federation are open, under which numbers, and from which versions they start.
// Pure.
//
// A task's randomness is keyed by its version and its `repeat`: how many tasks of that version its
// cluster had before. So each is another draw of batches and dropout, also where a strategy asks
// again before there is a new version.

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "core/strict_json.h"

namespace ecopipe {

struct OpenTask {
    std::string cluster;
    std::uint32_t group = 0;
    std::uint64_t base_version = 0;
    double assigned_s = 0;  // of the federation's clock
    std::uint32_t repeat = 0;
};

class TaskBook {
  public:
    // The number of a new task of `cluster` from `version`, never used before in this federation;
    // from 1.
    [[nodiscard]] std::uint64_t open(const std::string& cluster, std::uint32_t group,
                                     std::uint64_t version, double now_s);
    // It may not be there: 0 is no task's number.
    void close(std::uint64_t number) { open_.erase(number); }

    [[nodiscard]] const std::map<std::uint64_t, OpenTask>& all() const { return open_; }
    [[nodiscard]] bool empty() const { return open_.empty(); }
    // Null when it is not open; good until it is closed.
    [[nodiscard]] const OpenTask* find(std::uint64_t number) const;
    // Null when it is not open, or another cluster's.
    [[nodiscard]] const OpenTask* find_of(const std::string& cluster, std::uint64_t number) const;

    // Versions' hashes, which tasks name: of all that open tasks start from, and of the newest.
    void set_sha256(std::uint64_t version, std::string sha256);
    [[nodiscard]] const std::string& sha256_of(std::uint64_t version) const;  // one that was set
    void forget_sha256_but(const std::set<std::uint64_t>& versions);
    // That open tasks start from.
    [[nodiscard]] std::set<std::uint64_t> base_versions() const;

    // Of the snapshot: `next_task` and `tasks`; and of each entry of `sites`, which must be there
    // already, `asked`, `last_base` and `repeat`: what its cluster's next repeat follows from.
    // Hashes are no part of it: the journal has them. `restore` throws Json::exception for what is
    // missing or of another type; snapshots of older programs lack repeats.
    void save(Json& snapshot) const;
    void restore(const Json& snapshot);

  private:
    struct Newest {
        std::uint64_t base_version = 0;
        std::uint32_t repeat = 0;
    };
    std::map<std::uint64_t, OpenTask> open_;
    std::uint64_t next_ = 1;
    std::map<std::string, Newest> newest_;  // task of each cluster that ever had one
    std::map<std::uint64_t, std::string> sha256_;
};

}  // namespace ecopipe
