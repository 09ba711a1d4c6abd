#include "fl_server/simulation/checkpoint.h"

#include <fmt/format.h>

#include <filesystem>

#include "core/files.h"

namespace ecopipe {
namespace {

constexpr int kFormat = 1;
constexpr std::size_t kCheckpointBytesMax = 64ULL << 30;

}  // namespace

// "HASH LENGTH\n", LENGTH bytes of JSON, the models one after the other; the hash is of what
// follows the first line.
Result<void> write_simulation_checkpoint(const std::string& path,
                                         const SimulationCheckpoint& checkpoint) {
    Json json = {{"format", kFormat},
                 {"lines_bytes", checkpoint.lines_bytes},
                 {"state", checkpoint.snapshot.state},
                 {"models", Json::array()}};
    for (const FlatModel& model : checkpoint.snapshot.models)
        json["models"].push_back(model->size());
    std::string body = json.dump();
    const std::size_t length = body.size();
    for (const FlatModel& model : checkpoint.snapshot.models) body += *model;
    return write_file_atomically(path, fmt::format("{} {}\n", sha256_hex(body), length) + body);
}

Result<std::optional<SimulationCheckpoint>> read_simulation_checkpoint(const std::string& path) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) return std::optional<SimulationCheckpoint>();
    ECOPIPE_ASSIGN_OR_RETURN(const std::string text, read_file(path, kCheckpointBytesMax));
    const auto bad = [&](const char* what) {
        return fail(ExitCode::kBadFile, fmt::format("{}: {}", path, what));
    };
    const std::size_t line = text.find('\n');
    const std::size_t space = text.find(' ');
    if (line == std::string::npos || space == std::string::npos || space > line)
        return bad("expected a simulation checkpoint");
    const std::string_view body = std::string_view(text).substr(line + 1);
    if (sha256_hex(body) != text.substr(0, space)) return bad("its hash does not fit");
    // From here on the bytes are ours.
    const std::size_t length = std::stoull(text.substr(space + 1, line - space - 1));
    ECOPIPE_ASSIGN_OR_RETURN(const Json json, parse_json(body.substr(0, length), path));
    if (json.at("format") != kFormat)
        return fail(ExitCode::kMismatch, fmt::format("{}: expected format {}, found {}", path,
                                                     kFormat, shown(json.at("format"))));
    SimulationCheckpoint checkpoint;
    checkpoint.lines_bytes = json.at("lines_bytes").get<std::uint64_t>();
    checkpoint.snapshot.state = json.at("state");
    std::size_t at = length;
    for (const Json& size : json.at("models")) {
        checkpoint.snapshot.models.push_back(
            std::make_shared<const std::string>(body.substr(at, size.get<std::size_t>())));
        at += size.get<std::size_t>();
    }
    return std::optional(std::move(checkpoint));
}

}  // namespace ecopipe
