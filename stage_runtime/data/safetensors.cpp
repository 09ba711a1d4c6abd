#include "stage_runtime/data/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <optional>

#include "core/files.h"
#include "core/glob.h"
#include "core/log.h"
#include "core/narrow_floats.h"
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

// Which names are of one tensor.
class Twins {
  public:
    explicit Twins(const ModelInfo& info) {
        for (const TensorInfo& tensor : info.tensors) {
            if (tensor.same_as.empty()) continue;
            first_names_.emplace(tensor.name, tensor.same_as);
            names_[tensor.same_as].push_back(tensor.name);
        }
    }
    [[nodiscard]] std::string_view first_name(std::string_view name) const {
        const auto found = first_names_.find(name);
        return found == first_names_.end() ? name : std::string_view(found->second);
    }
    // What stands under another name of the tensor, or null.
    [[nodiscard]] const HostTensor* elsewhere(
        std::string_view name, const std::map<std::string_view, const HostTensor*>& offered) const {
        const std::string_view first = first_name(name);
        if (const auto found = offered.find(first); found != offered.end()) return found->second;
        const auto names = names_.find(first);
        if (names == names_.end()) return nullptr;
        for (const std::string& other : names->second)
            if (const auto found = offered.find(other); found != offered.end())
                return found->second;
        return nullptr;
    }

  private:
    std::map<std::string, std::string, std::less<>> first_names_;
    std::map<std::string, std::vector<std::string>, std::less<>> names_;  // without the first
};

bool same_bytes(const HostTensor& a, const HostTensor& b) {
    return a.dtype() == b.dtype() && a.bytes() == b.bytes() &&
           std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}

// A floating-point tensor as float32; nothing when a value does not fit.
std::optional<HostTensor> as_float32(const HostTensor& from) {
    HostTensor out = HostTensor::allocate(DType::kF32, from.shape());
    const auto to = out.as<float>();
    bool fits = true;
    for (std::size_t i = 0; i < to.size(); ++i) {
        if (from.dtype() == DType::kF64) {
            const double value = from.as<double>()[i];
            to[i] = static_cast<float>(value);
            fits = fits && std::isfinite(to[i]) == std::isfinite(value);
        } else {
            const std::uint16_t value = from.as<std::uint16_t>()[i];
            to[i] = from.dtype() == DType::kF16 ? from_half(value) : from_bfloat(value);
        }
    }
    if (!fits) return std::nullopt;
    return out;
}

// The tensor as the model has it.
Result<HostTensor> fitted(const HostTensor& given, const NamedTensor& own,
                          const std::string& source, std::map<DType, std::size_t>& converted) {
    const DType dtype = own.tensor.dtype();
    const bool convertible =
        dtype == DType::kF32 && is_floating(given.dtype()) && given.dtype() != dtype;
    if (given.shape() != own.tensor.shape() || (given.dtype() != dtype && !convertible))
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: tensor {}: expected {} {}, found {} {}", source, own.name,
                                dtype_name(dtype), shape_text(own.tensor.shape()),
                                dtype_name(given.dtype()), shape_text(given.shape())));
    if (!convertible) return given;
    auto narrowed = as_float32(given);
    if (!narrowed)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: tensor {}: expected numbers that float32 can hold, found "
                                "larger ones",
                                source, own.name));
    ++converted[given.dtype()];
    return *narrowed;
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
                           const std::vector<std::string>& except, const ModelInfo& info,
                           TensorMap& weights) {
    for (const std::string& pattern : except)
        if (std::none_of(weights.begin(), weights.end(),
                         [&](const NamedTensor& w) { return matches_any({pattern}, w.name); }))
            return fail(ExitCode::kUsage,
                        fmt::format("--init-except: {} is no tensor of the model; its first is {}",
                                    printable(pattern), weights.empty() ? "" : weights[0].name));
    const Twins twins(info);
    std::map<std::string_view, const HostTensor*> offered;
    for (const NamedTensor& entry : given)
        if (!matches_any(except, entry.name)) offered.emplace(entry.name, &entry.tensor);
    std::size_t adopted = 0;
    std::map<DType, std::size_t> converted;
    std::map<std::string_view, const HostTensor*> taken;  // by a tensor's first name
    for (NamedTensor& weight : weights) {
        if (matches_any(except, weight.name)) continue;
        const auto found = offered.find(weight.name);
        const HostTensor* tensor =
            found != offered.end() ? found->second : twins.elsewhere(weight.name, offered);
        if (tensor == nullptr)
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: tensor {} is missing", source, weight.name));
        adopted += found != offered.end() ? 1U : 0U;
        const auto [twin, first] = taken.emplace(twins.first_name(weight.name), tensor);
        if (!first && !same_bytes(*twin->second, *tensor))
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: tensor {}: expected the values of {}, which is the same "
                                    "tensor of the model, found others",
                                    source, weight.name, twin->first));
        ECOPIPE_ASSIGN_OR_RETURN(HostTensor fitting, fitted(*tensor, weight, source, converted));
        weight.tensor = std::move(fitting);
    }
    if (offered.size() != adopted)
        return fail(ExitCode::kBadFile, fmt::format("{}: expected the model's {} tensors, found {}",
                                                    source, adopted, offered.size()));
    for (const auto& [dtype, count] : converted)
        log_info("{}: {} tensor{} converted from {}", source, count, count == 1 ? "" : "s",
                 dtype_name(dtype));
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
