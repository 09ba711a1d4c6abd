#include "fl_server/service/class_names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "core/log.h"

namespace ecopipe {
namespace {

constexpr std::size_t kShownMax = 20;  // names in one message

std::string listed(const std::vector<std::string>& names) {
    std::vector<std::string> shown;
    for (const std::string& name : names) {
        if (shown.size() == kShownMax) return fmt::format("{}, ...", fmt::join(shown, ", "));
        shown.push_back(printable(name));
    }
    return fmt::format("{}", fmt::join(shown, ", "));
}

}  // namespace

Result<ClassNames> ClassNames::of(std::vector<std::string> names) {
    if (const std::string expected = check_classes(names); !expected.empty())
        return fail(ExitCode::kUsage, fmt::format("classes: expected {}", expected));
    ClassNames classes;
    classes.sha256 = classes_hash(names);
    classes.names = std::move(names);
    return classes;
}

std::string ClassNames::text() const {
    return names.empty() ? "a list with hash " + sha256.substr(0, 12) : listed(names);
}

Json class_names_json(const ClassNames& classes) {
    return {{"names", classes.names}, {"sha256", classes.sha256}};
}

Result<ClassNames> class_names_from(const Json& json) {
    try {
        ClassNames classes{.names = json.at("names").get<std::vector<std::string>>(),
                           .sha256 = json.at("sha256").get<std::string>()};
        if (classes.names.empty() || classes.sha256 == classes_hash(classes.names)) return classes;
        return fail(ExitCode::kBadFile, "journal: the hash of its classes is another");
    } catch (const Json::exception& error) {
        return fail(ExitCode::kBadFile, fmt::format("journal: {}", error.what()));
    }
}

Result<ClassDecision> judge_classes(const ClassNames& known, const ClusterHello& hello) {
    if (hello.classes_sha256.empty()) {
        if (known.names.empty() || hello.class_count <= known.names.size())
            return ClassDecision::kTake;
        return fail(ExitCode::kUsage,
                    fmt::format("its data have {} classes, the federation's are {}: {}",
                                hello.class_count, known.names.size(), known.text()));
    }
    if (!known.known()) return ClassDecision::kAdopt;
    if (hello.classes_sha256 == known.sha256) {
        // The first kept them to itself, this one tells them.
        const bool news = known.names.empty() && !hello.classes.empty();
        return news ? ClassDecision::kAdopt : ClassDecision::kTake;
    }
    if (known.names.empty())
        return fail(ExitCode::kUsage,
                    "its classes are not those of the first cluster, which does not tell them "
                    "(--report-labels): classes: in server.yaml says what all map theirs to");
    for (const std::string& name : hello.classes)
        if (std::find(known.names.begin(), known.names.end(), name) == known.names.end())
            return fail(ExitCode::kUsage,
                        fmt::format("its class {} is not among the federation's: {}",
                                    printable(name), known.text()));
    return ClassDecision::kMap;
}

}  // namespace ecopipe
