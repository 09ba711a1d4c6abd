#include "stage_runtime/model/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/files.h"
#include "core/glob.h"
#include "core/log.h"
#include "core/strict_json.h"

namespace ecopipe {
namespace {

struct Entry {
    std::string name;
    DType dtype;
    Shape shape;
    std::size_t begin;
    std::size_t end;
};

Result<std::vector<Entry>> parse_entries(std::string_view header, std::size_t data_bytes,
                                         const std::string& source) {
    ECOPIPE_ASSIGN_OR_RETURN(Json json, parse_json(header, source));
    Document document(std::move(json), source);
    Fields root = document.root();
    std::vector<Entry> entries;
    for (const std::string& name : root.keys()) {
        if (name == "__metadata__") continue;
        Fields tensor = root.object(name);
        const auto dtype = dtype_named(tensor.text("dtype"));
        const auto shape = tensor.integers("shape", {0, INT64_MAX});
        const auto offsets =
            tensor.integers("data_offsets", {0, static_cast<std::int64_t>(data_bytes)});
        tensor.no_others();
        ECOPIPE_RETURN_IF_ERROR(document.finish());
        const auto bytes = dtype ? checked_bytes(*dtype, shape) : std::nullopt;
        if (!bytes || offsets.size() != 2 || offsets[1] < offsets[0] ||
            static_cast<std::size_t>(offsets[1] - offsets[0]) != *bytes)
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: tensor {}: dtype, shape and offsets do not agree", source,
                                    printable(name)));
        entries.push_back({name, *dtype, shape, static_cast<std::size_t>(offsets[0]),
                           static_cast<std::size_t>(offsets[1])});
    }
    std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
        return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    std::size_t at = 0;
    for (const Entry& entry : entries) {
        if (entry.begin != at)
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: tensor {}: expected its data at byte {}, found {}", source,
                                    printable(entry.name), at, entry.begin));
        at = entry.end;
    }
    if (at != data_bytes)
        return fail(
            ExitCode::kBadFile,
            fmt::format("{}: expected {} bytes of tensor data, found {}", source, at, data_bytes));
    return entries;
}

}  // namespace

Result<TensorMap> parse_safetensors(std::string_view bytes, const std::string& source) {
    std::uint64_t header_bytes = 0;
    if (bytes.size() < sizeof header_bytes)
        return fail(ExitCode::kBadFile, source + ": is too short for a safetensors file");
    std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
    const std::string_view rest = bytes.substr(sizeof header_bytes);
    if (header_bytes > rest.size() || header_bytes > kSafetensorsHeaderMax)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: expected a header within the file and {} bytes, found {}",
                                source, kSafetensorsHeaderMax, header_bytes));
    const std::string_view data = rest.substr(header_bytes);
    ECOPIPE_ASSIGN_OR_RETURN(const auto entries,
                             parse_entries(rest.substr(0, header_bytes), data.size(), source));
    TensorMap tensors;
    for (const Entry& entry : entries) {
        HostTensor tensor = HostTensor::allocate(entry.dtype, entry.shape);
        std::memcpy(tensor.data(), data.data() + entry.begin, entry.end - entry.begin);
        tensors.push_back({entry.name, std::move(tensor)});
    }
    return tensors;
}

Result<TensorMap> read_safetensors(const std::string& path) {
    ECOPIPE_ASSIGN_OR_RETURN(const std::string bytes, read_file(path, kSafetensorsBytesMax));
    return parse_safetensors(bytes, path);
}

Result<void> adopt_weights(const TensorMap& given, const std::string& source,
                           const std::vector<std::string>& except, TensorMap& weights) {
    for (const std::string& pattern : except)
        if (std::none_of(weights.begin(), weights.end(),
                         [&](const NamedTensor& w) { return matches_any({pattern}, w.name); }))
            return fail(ExitCode::kUsage,
                        fmt::format("--init-except: {} is no tensor of the model; its first is {}",
                                    printable(pattern), weights.empty() ? "" : weights[0].name));
    std::size_t adopted = 0;
    for (NamedTensor& weight : weights) {
        if (matches_any(except, weight.name)) continue;
        ++adopted;
        const auto found = std::find_if(given.begin(), given.end(), [&](const NamedTensor& g) {
            return g.name == weight.name;
        });
        if (found == given.end())
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: tensor {} is missing", source, weight.name));
        if (found->tensor.shape() != weight.tensor.shape() ||
            found->tensor.dtype() != weight.tensor.dtype())
            return fail(
                ExitCode::kBadFile,
                fmt::format("{}: tensor {}: expected shape {}, found {}", source, weight.name,
                            shape_text(weight.tensor.shape()), shape_text(found->tensor.shape())));
        weight.tensor = found->tensor;
    }
    const auto offered = std::count_if(given.begin(), given.end(), [&](const NamedTensor& g) {
        return !matches_any(except, g.name);
    });
    if (static_cast<std::size_t>(offered) != adopted)
        return fail(ExitCode::kBadFile, fmt::format("{}: expected the model's {} tensors, found {}",
                                                    source, adopted, offered));
    return {};
}

Result<void> write_safetensors(const std::string& path, const TensorMap& tensors) {
    OrderedJson header = OrderedJson::object();
    std::size_t at = 0;
    for (const NamedTensor& entry : tensors) {
        const std::size_t bytes = entry.tensor.bytes();
        header[entry.name] = {{"dtype", std::string(dtype_name(entry.tensor.dtype()))},
                              {"shape", entry.tensor.shape()},
                              {"data_offsets", {at, at + bytes}}};
        at += bytes;
    }
    std::string text = header.dump();
    while (text.size() % 8 != 0) text += ' ';  // the format aligns tensor data to 8 bytes
    const auto length = static_cast<std::uint64_t>(text.size());
    std::string prefix(reinterpret_cast<const char*>(&length), sizeof length);
    prefix += text;
    std::vector<std::string_view> parts{prefix};
    for (const NamedTensor& entry : tensors)
        parts.emplace_back(reinterpret_cast<const char*>(entry.tensor.data()),
                           entry.tensor.bytes());
    return write_file_atomically(path, parts);
}

}  // namespace ecopipe
