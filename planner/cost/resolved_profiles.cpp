#include "planner/cost/resolved_profiles.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace ecopipe {
namespace {

tl::unexpected<Error> refused(const ModelProfile& profile, const std::string& problem) {
    return fail(ExitCode::kBadFile, fmt::format("{}: {}", profile.source, problem));
}

// What must not differ between two profiles of one model.
Result<void> check_layer(const ModelProfile& profile, std::size_t at,
                         const LayerProfile& expected) {
    const LayerProfile& layer = profile.layers[at];
    const auto differs = [&](const char* key, std::uint64_t wanted,
                             std::uint64_t found) -> Result<void> {
        if (wanted == found) return {};
        return refused(
            profile,
            fmt::format("layers[{}].{}: expected {}, as in the first complete profile, found {}",
                        at, key, wanted, found));
    };
    ECOPIPE_RETURN_IF_ERROR(
        differs("parameter_bytes", expected.parameter_bytes, layer.parameter_bytes));
    ECOPIPE_RETURN_IF_ERROR(
        differs("trainable_parameter_bytes", expected.trainable_bytes(), layer.trainable_bytes()));
    ECOPIPE_RETURN_IF_ERROR(differs("optimizer_bytes", expected.optimizer_bytes.value_or(0),
                                    layer.optimizer_bytes.value_or(0)));
    ECOPIPE_RETURN_IF_ERROR(differs("output_bytes_per_sample", expected.output_bytes_per_sample,
                                    layer.output_bytes_per_sample));
    return differs("joined_to_previous", expected.joined_to_previous ? 1 : 0,
                   layer.joined_to_previous ? 1 : 0);
}

Result<void> check_same_model(const ModelProfile& profile, const ModelProfile& first) {
    if (profile.model != first.model)
        return refused(profile, fmt::format("model: expected {} as in {}, found {}", first.model,
                                            first.source, profile.model));
    if (profile.optimizer_slots != first.optimizer_slots)
        return refused(profile,
                       fmt::format("optimizer_slots: expected {} as in {}, found {}",
                                   first.optimizer_slots, first.source, profile.optimizer_slots));
    if (profile.input_bytes_per_sample != first.input_bytes_per_sample)
        return refused(profile,
                       fmt::format("input_bytes_per_sample: expected {} as in {}, found {}",
                                   first.input_bytes_per_sample, first.source,
                                   profile.input_bytes_per_sample));
    return {};
}

Result<void> check_complete(const ModelProfile& profile, const ModelProfile& first) {
    ECOPIPE_RETURN_IF_ERROR(check_same_model(profile, first));
    if (profile.layers.size() != first.layers.size())
        return refused(profile,
                       fmt::format("layers: expected {} as in {} (or \"partial\": true), found {}",
                                   first.layers.size(), first.source, profile.layers.size()));
    for (std::size_t i = 0; i < profile.layers.size(); ++i) {
        if (profile.layers[i].name != first.layers[i].name)
            return refused(profile,
                           fmt::format("layers[{}].name: expected '{}' as in {}, found '{}'", i,
                                       first.layers[i].name, first.source, profile.layers[i].name));
        ECOPIPE_RETURN_IF_ERROR(check_layer(profile, i, first.layers[i]));
    }
    if (profile.values != first.values)
        return refused(profile,
                       fmt::format("values: expected those of {}, found others", first.source));
    return {};
}

Result<void> check_profiles(const std::vector<ModelProfile>& profiles) {
    if (profiles.empty())
        return fail(ExitCode::kBadFile, "profile: expected at least one profile, found none");
    std::set<std::pair<std::string, int>> measured;
    const ModelProfile* first = nullptr;
    for (const ModelProfile& profile : profiles) {
        if (!measured.insert({profile.device, profile.threads}).second)
            return refused(profile, fmt::format("device: expected one profile of '{}' with "
                                                "threads {}, found another",
                                                profile.device, profile.threads));
        if (profile.partial) continue;
        if (first == nullptr) first = &profile;
        ECOPIPE_RETURN_IF_ERROR(check_complete(profile, *first));
    }
    if (first == nullptr)
        return refused(profiles.front(),
                       "partial: expected a complete profile of some device beside it, found none");
    return {};
}

std::optional<std::size_t> own_profile(const Device& device,
                                       const std::vector<ModelProfile>& profiles) {
    std::optional<std::size_t> first;
    for (std::size_t p = 0; p < profiles.size(); ++p) {
        if (profiles[p].device != device.name) continue;
        if (profiles[p].threads == device.threads) return p;
        if (!first) first = p;
    }
    return first;
}

}  // namespace

Result<ResolvedProfiles> resolve_profiles(const Cluster& cluster,
                                          const std::vector<ModelProfile>& profiles) {
    ECOPIPE_RETURN_IF_ERROR(check_profiles(profiles));
    ResolvedProfiles out;
    const auto whole = std::find_if(profiles.begin(), profiles.end(),
                                    [](const auto& profile) { return !profile.partial; });
    for (const ModelProfile& profile : profiles) {
        if (!profile.partial) {
            out.profiles.push_back(profile);
            continue;
        }
        ECOPIPE_RETURN_IF_ERROR(check_same_model(profile, *whole));
        ECOPIPE_ASSIGN_OR_RETURN(Completed completed, complete_profile(profile, *whole));
        out.profiles.push_back(std::move(completed.profile));
        out.predicted.push_back(std::move(completed.report));
    }
    for (std::size_t d = 0; d < cluster.devices.size(); ++d) {
        const Device& device = cluster.devices[d];
        const std::optional<std::size_t> own = own_profile(device, profiles);
        if (!own && !device.profile.empty())
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: devices[{}].profile: expected the profile of '{}' among "
                                    "those read, found none",
                                    cluster.source, d, device.name));
        out.of_device.push_back(own ? ResolvedProfiles::Source{*own, 1.0}
                                    : ResolvedProfiles::Source{0, device.speed});
        for (std::size_t p = 0; p < profiles.size(); ++p)
            if (own && p != *own && profiles[p].device == device.name)
                out.other_threads.push_back({d, p});
    }
    return out;
}

}  // namespace ecopipe
