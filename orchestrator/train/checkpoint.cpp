#include "orchestrator/train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

#include "core/crc32c.h"
#include "core/files.h"
#include "core/log.h"

namespace ecopipe {
namespace {

constexpr std::string_view kMagic = "ECOCKPT";
constexpr char kCheckpointVersion = 1;
constexpr std::size_t kPreambleBytes = 16;
constexpr std::size_t kHeaderBytesMax = 64U << 20;
constexpr std::size_t kFileBytesMax = 64ULL << 30;
constexpr std::size_t kKept = 2;  // the newest may turn out damaged
constexpr std::string_view kSuffix = ".checkpoint";

std::uint32_t checksum(std::string_view bytes) { return crc32c(std::as_bytes(std::span(bytes))); }

std::string_view bytes_of(const HostTensor& tensor) {
    return {reinterpret_cast<const char*>(tensor.data()), tensor.bytes()};
}

// Files of the store, the newest first: their names sort by step.
std::vector<std::string> files_in(const std::string& directory) {
    std::vector<std::string> files;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with("step-") && name.ends_with(kSuffix))
            files.push_back(entry.path().string());
    }
    std::sort(files.rbegin(), files.rend());
    return files;
}

struct Entry {
    std::string name;
    DType dtype;
    Shape shape;
    std::size_t begin;
    std::uint32_t crc;
};

Result<Entry> read_entry(Fields fields, const std::string& path, std::size_t data_bytes) {
    Entry entry;
    entry.name = fields.text("name");
    const auto dtype = dtype_named(fields.text("dtype"));
    entry.shape = fields.integers("shape", {0, INT64_MAX});
    entry.begin = static_cast<std::size_t>(
        fields.integer("begin", {0, static_cast<std::int64_t>(data_bytes)}));
    entry.crc = static_cast<std::uint32_t>(fields.integer("crc32c", {0, UINT32_MAX}));
    fields.no_others();
    const auto bytes = dtype ? checked_bytes(*dtype, entry.shape) : std::nullopt;
    if (!bytes || *bytes > data_bytes - entry.begin)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: is damaged: tensor {} does not lie within the file", path,
                                entry.name));
    entry.dtype = *dtype;
    return entry;
}

}  // namespace

Result<void> write_checkpoint(const std::string& path, const Checkpoint& checkpoint) {
    OrderedJson tensors = OrderedJson::array();
    std::size_t at = 0;
    for (const NamedTensor& entry : checkpoint.state) {
        tensors.push_back({{"name", entry.name},
                           {"dtype", std::string(dtype_name(entry.tensor.dtype()))},
                           {"shape", entry.tensor.shape()},
                           {"begin", at},
                           {"crc32c", checksum(bytes_of(entry.tensor))}});
        at += entry.tensor.bytes();
    }
    const std::string header = OrderedJson{
        {"schema", "ecopipe.checkpoint/1"},
        {"step", checkpoint.step},
        {"flags", checkpoint.flags},
        {"validation", checkpoint.validation.json()},
        {"data_bytes", at},
        {"tensors",
         std::move(tensors)}}.dump();
    std::string preamble(kMagic);
    preamble += kCheckpointVersion;
    for (const std::uint32_t number : {static_cast<std::uint32_t>(header.size()), checksum(header)})
        preamble.append(reinterpret_cast<const char*>(&number), sizeof number);
    std::vector<std::string_view> parts{preamble, header};
    for (const NamedTensor& entry : checkpoint.state) parts.push_back(bytes_of(entry.tensor));
    return write_file_atomically(path, parts);
}

Result<Checkpoint> read_checkpoint(const std::string& path) {
    ECOPIPE_ASSIGN_OR_RETURN(const std::string file, read_file(path, kFileBytesMax));
    const auto bad = [&](const std::string& what) {
        return fail(ExitCode::kBadFile, fmt::format("{}: {}", path, what));
    };
    const std::string_view bytes(file);
    if (bytes.size() < kPreambleBytes) return bad("is cut short");
    if (!bytes.starts_with(kMagic)) return bad("is no checkpoint");
    if (bytes[kMagic.size()] > kCheckpointVersion)
        return fail(ExitCode::kMismatch, fmt::format("{}: expected version {} or older, found {}",
                                                     path, static_cast<int>(kCheckpointVersion),
                                                     static_cast<int>(bytes[kMagic.size()])));
    if (bytes[kMagic.size()] != kCheckpointVersion) return bad("is of no known version");
    std::array<std::uint32_t, 2> numbers{};
    std::memcpy(numbers.data(), bytes.data() + kMagic.size() + 1, sizeof numbers);
    const auto [header_bytes, header_crc] = numbers;
    if (header_bytes > kHeaderBytesMax || header_bytes > bytes.size() - kPreambleBytes)
        return bad("is cut short or damaged");
    const std::string_view header = bytes.substr(kPreambleBytes, header_bytes);
    if (checksum(header) != header_crc) return bad("is damaged: its header's checksum differs");
    const std::string_view data = bytes.substr(kPreambleBytes + header_bytes);

    ECOPIPE_ASSIGN_OR_RETURN(Json json, parse_json(header, path));
    if (!json.is_object()) return bad("is damaged: its header is no object");
    Checkpoint checkpoint;
    checkpoint.flags = OrderedJson::parse(json.value("flags", Json::object()).dump());
    json.erase("flags");
    Document document(std::move(json), path);
    Fields root = document.root();
    const std::string schema = root.text("schema");
    checkpoint.step = static_cast<std::uint64_t>(root.integer("step", {0, INT64_MAX}));
    const auto data_bytes = static_cast<std::size_t>(root.integer("data_bytes", {0, INT64_MAX}));
    if (data_bytes != data.size())
        return bad(fmt::format("is cut short: expected {} bytes of tensors, found {}", data_bytes,
                               data.size()));
    checkpoint.validation = ValidationHistory::read(root.objects("validation"));
    std::size_t at = 0;
    for (Fields fields : root.objects("tensors")) {
        ECOPIPE_ASSIGN_OR_RETURN(Entry entry, read_entry(std::move(fields), path, data.size()));
        // Many tensors over the same bytes would take many times the file's size of memory.
        if (entry.begin != at)
            return bad(fmt::format("is damaged: tensor {} does not follow the one before it",
                                   printable(entry.name)));
        at += *checked_bytes(entry.dtype, entry.shape);
        HostTensor tensor = HostTensor::allocate(entry.dtype, entry.shape);
        std::memcpy(tensor.data(), data.data() + entry.begin, tensor.bytes());
        if (checksum(bytes_of(tensor)) != entry.crc)
            return bad(fmt::format("is damaged: the checksum of {} differs", entry.name));
        checkpoint.state.push_back({std::move(entry.name), std::move(tensor)});
    }
    root.no_others();
    ECOPIPE_RETURN_IF_ERROR(document.finish());
    return checkpoint;
}

Result<void> CheckpointStore::write(const Checkpoint& checkpoint) const {
    ECOPIPE_RETURN_IF_ERROR(make_directories(directory_));
    ECOPIPE_RETURN_IF_ERROR(write_checkpoint(
        fmt::format("{}/step-{:012}{}", directory_, checkpoint.step, kSuffix), checkpoint));
    const auto files = files_in(directory_);
    std::error_code ignored;  // one too many harms nobody
    for (std::size_t i = kKept; i < files.size(); ++i) std::filesystem::remove(files[i], ignored);
    return {};
}

Result<std::optional<Checkpoint>> CheckpointStore::newest(
    const std::function<void(const std::string& why)>& skipped) const {
    for (const std::string& file : files_in(directory_)) {
        auto checkpoint = read_checkpoint(file);
        if (checkpoint) return std::optional(std::move(*checkpoint));
        if (checkpoint.error().code == ExitCode::kMismatch)
            return tl::unexpected<Error>(checkpoint.error());
        skipped(checkpoint.error().message);
    }
    return std::optional<Checkpoint>();
}

}  // namespace ecopipe
