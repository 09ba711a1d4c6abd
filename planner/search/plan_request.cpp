#include <fmt/format.h>

#include <charconv>
#include <filesystem>

#include "core/files.h"
#include "core/log.h"
#include "core/strict_json.h"
#include "domain/sum_blocks.h"
#include "planner/schedule/registry.h"
#include "planner/schedule/schedule_check.h"
#include "planner/search/partition.h"

namespace ecopipe {

tl::unexpected<Error> unknown_schedule(const std::string& name) {
    return fail(ExitCode::kUsage,
                fmt::format("--schedule: expected {}, {} or a FILE.csv, found '{}'", kAutoSchedule,
                            schedule_names(", "), printable(name)));
}

Result<void> use_schedule(PlanRequest& request, const std::string& name_or_path) {
    if (name_or_path == kAutoSchedule || find_schedule(name_or_path) != nullptr) {
        request.schedule = name_or_path;
        return {};
    }
    if (!name_or_path.ends_with(".csv")) return unknown_schedule(name_or_path);
    ECOPIPE_ASSIGN_OR_RETURN(const std::string bytes, read_file(name_or_path, kConfigBytesMax));
    ECOPIPE_ASSIGN_OR_RETURN(ScheduleText text, parse_schedule(bytes, name_or_path));
    ECOPIPE_ASSIGN_OR_RETURN(const ScheduleFacts facts, check_schedule(text, name_or_path));
    if (request.micro_batches != 0 && request.micro_batches != facts.micro_batches)
        return fail(ExitCode::kUsage,
                    fmt::format("--micro-batches: expected {}, the count in {}, found {}",
                                facts.micro_batches, name_or_path, request.micro_batches));
    request.micro_batches = facts.micro_batches;
    request.schedule = printable(std::filesystem::path(name_or_path).stem().string());
    request.actions = std::move(text);
    return {};
}

Result<int> parse_sum_blocks(const std::string& text) {
    if (text == "auto") return 0;
    int blocks = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), blocks);
    if (error == std::errc() && stop == text.data() + text.size() && is_sum_blocks(blocks))
        return blocks;
    return fail(ExitCode::kUsage,
                fmt::format("--sum-blocks: expected auto or a power of two up to {}, found '{}'",
                            kSumBlocksMax, printable(text)));
}

Result<Recomputation> parse_recomputation(const std::string& text) {
    if (text == "stages") return Recomputation::kStages;
    if (text == "segments") return Recomputation::kSegments;
    if (text == "adaptive") return Recomputation::kAdaptive;
    return fail(ExitCode::kUsage,
                fmt::format("--recompute: expected stages, segments or adaptive, found '{}'",
                            printable(text)));
}

Result<std::vector<ModelProfile>> read_profiles(const Cluster& cluster,
                                                const std::vector<std::string>& paths) {
    std::vector<ModelProfile> out;
    for (const std::string& path : paths) {
        ECOPIPE_ASSIGN_OR_RETURN(ModelProfile profile, read_profile(path));
        out.push_back(std::move(profile));
    }
    const std::filesystem::path directory = std::filesystem::path(cluster.source).parent_path();
    for (const Device& device : cluster.devices) {
        if (device.profile.empty()) continue;
        ECOPIPE_ASSIGN_OR_RETURN(ModelProfile profile,
                                 read_profile((directory / device.profile).string()));
        profile.device = device.name;
        out.push_back(std::move(profile));
    }
    return out;
}

Result<std::vector<ModelProfile>> read_needed_profiles(const Cluster& cluster,
                                                       const std::vector<std::string>& paths) {
    ECOPIPE_ASSIGN_OR_RETURN(auto profiles, read_profiles(cluster, paths));
    if (profiles.empty())
        return fail(ExitCode::kUsage,
                    fmt::format("--profile: expected a file, found none, and {} names none",
                                cluster.source));
    return profiles;
}

}  // namespace ecopipe
