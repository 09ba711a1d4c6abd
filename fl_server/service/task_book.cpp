#include "fl_server/service/task_book.h"

#include <utility>

namespace ecopipe {

std::uint64_t TaskBook::open(const std::string& cluster, std::uint32_t group, std::uint64_t version,
                             double now_s) {
    const auto before = newest_.find(cluster);
    const bool again = before != newest_.end() && before->second.base_version == version;
    const std::uint32_t repeat = again ? before->second.repeat + 1 : 0;
    newest_[cluster] = {.base_version = version, .repeat = repeat};
    const std::uint64_t number = next_++;
    open_[number] = {.cluster = cluster,
                     .group = group,
                     .base_version = version,
                     .assigned_s = now_s,
                     .repeat = repeat};
    return number;
}

const OpenTask* TaskBook::find(std::uint64_t number) const {
    const auto found = open_.find(number);
    return found == open_.end() ? nullptr : &found->second;
}

const OpenTask* TaskBook::find_of(const std::string& cluster, std::uint64_t number) const {
    const OpenTask* task = find(number);
    return task != nullptr && task->cluster == cluster ? task : nullptr;
}

void TaskBook::set_sha256(std::uint64_t version, std::string sha256) {
    sha256_[version] = std::move(sha256);
}

const std::string& TaskBook::sha256_of(std::uint64_t version) const { return sha256_.at(version); }

void TaskBook::forget_sha256_but(const std::set<std::uint64_t>& versions) {
    std::erase_if(sha256_, [&](const auto& entry) { return !versions.contains(entry.first); });
}

std::set<std::uint64_t> TaskBook::base_versions() const {
    std::set<std::uint64_t> versions;
    for (const auto& [number, task] : open_) versions.insert(task.base_version);
    return versions;
}

void TaskBook::save(Json& snapshot) const {
    snapshot["next_task"] = next_;
    Json& tasks = snapshot["tasks"] = Json::array();
    for (const auto& [number, task] : open_)
        tasks.push_back({{"task", number},
                         {"cluster", task.cluster},
                         {"group", task.group},
                         {"base_version", task.base_version},
                         {"assigned_s", task.assigned_s},
                         {"repeat", task.repeat}});
    for (Json& site : snapshot.at("sites")) {
        const auto newest = newest_.find(site.at("facts").at("cluster").get<std::string>());
        const bool asked = newest != newest_.end();
        site["asked"] = asked;
        site["last_base"] = asked ? newest->second.base_version : 0;
        site["repeat"] = asked ? newest->second.repeat : 0;
    }
}

void TaskBook::restore(const Json& snapshot) {
    next_ = snapshot.at("next_task");
    for (const Json& t : snapshot.at("tasks"))
        open_[t.at("task")] = {.cluster = t.at("cluster"),
                               .group = t.at("group"),
                               .base_version = t.at("base_version"),
                               .assigned_s = t.at("assigned_s"),
                               .repeat = t.value("repeat", std::uint32_t{0})};
    for (const Json& site : snapshot.at("sites"))
        if (site.value("asked", false))
            newest_[site.at("facts").at("cluster")] = {
                .base_version = site.value("last_base", std::uint64_t{0}),
                .repeat = site.value("repeat", std::uint32_t{0})};
}

}  // namespace ecopipe
