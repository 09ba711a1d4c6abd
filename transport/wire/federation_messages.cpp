#include "transport/wire/federation_messages.h"

#include <cmath>
#include <cstring>
#include <set>

#include "core/check.h"
#include "core/files.h"
#include "core/utf8.h"

namespace ecopipe {
namespace {

constexpr std::size_t kHashChars = 64;

std::string check_pairs(const std::vector<KeyValue>& pairs) {
    for (const KeyValue& pair : pairs)
        if (pair.key.empty() || pair.key.size() > kNameBytesMax ||
            pair.value.size() > kReasonBytesMax)
            return "short keys and values";
    return {};
}

}  // namespace

std::string ClusterHello::validate() const {
    for (const std::string* text : {&cluster, &program_version, &model})
        if (!is_utf8(*text)) return "texts in UTF-8";
    if (cluster.empty() || cluster.size() > kNameBytesMax)
        return "a cluster name of 1 to 128 bytes";
    for (const char c : cluster)
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7F)
            return "a cluster name without blanks";
    if (program_version.size() > kNameBytesMax || model.size() > kReasonBytesMax)
        return "texts within their limits";
    if (!classes_sha256.empty() && classes_sha256.size() != kHashChars) return "a SHA-256";
    if (classes.empty()) return {};
    if (classes.size() != class_count) return "a name for each class";
    if (classes_sha256 != classes_hash(classes)) return "the hash of its classes";
    return check_classes(classes);
}

std::string ClassList::validate() const {
    return classes.empty() ? "at least one class" : check_classes(classes);
}

std::string classes_hash(const std::vector<std::string>& classes) {
    if (classes.empty()) return {};
    std::string bytes;
    for (const std::string& name : classes) {
        for (unsigned shift = 0; shift < 32; shift += 8)
            bytes += static_cast<char>(name.size() >> shift & 0xFFU);
        bytes += name;
    }
    return sha256_hex(bytes);
}

std::string check_classes(const std::vector<std::string>& classes) {
    if (classes.size() > kClassesMax) return "no more than 65536 classes";
    std::set<std::string_view> names;
    std::size_t bytes = 0;
    for (const std::string& name : classes) {
        if (name.empty() || name.size() > kClassNameBytesMax || !is_utf8(name))
            return "class names of 1 to 255 bytes in UTF-8";
        if (!names.insert(name).second) return "each class once";
        bytes += name.size();
    }
    return bytes > kClassListBytesMax ? "class names of no more than 256 KiB in all" : "";
}

std::string ClusterWelcome::validate() const {
    if (ping_interval_ms == 0 || silence_max_ms <= ping_interval_ms)
        return "a silence above the interval";
    return check_pairs(client);
}

std::string Task::validate() const {
    if (!flat_bytes(tensors)) return "valid tensors";
    if (sha256.size() != kHashChars) return "a SHA-256";
    return check_pairs(client);
}

std::string ModelRequest::validate() const {
    return bytes > 0 && bytes <= kPayloadBytesMax ? "" : "1 byte to one payload";
}

std::string UpdateSlice::validate() const {
    if (slices == 0 || slice >= slices) return "a slice within its count";
    if (encoding != UpdateEncoding::kWeightsFp32) return "a known encoding";
    if (!std::isfinite(train_loss) || !std::isfinite(seconds) || seconds < 0 ||
        !std::isfinite(eval_loss) || !(eval_accuracy >= 0 && eval_accuracy <= 1))
        return "finite numbers";
    return sha256.size() == kHashChars ? "" : "a SHA-256";
}

std::string UploadGrant::validate() const {
    return until >= offset && reason.size() <= kReasonBytesMax ? ""
                                                               : "a stretch and a short reason";
}

std::string ClusterStatus::validate() const {
    return std::isfinite(latency_s) && latency_s >= 0 && note.size() <= kReasonBytesMax
               ? ""
               : "a latency and a short note";
}

std::string Verdict::validate() const {
    return reason.size() <= kReasonBytesMax ? "" : "a short reason";
}
std::string FederationEnd::validate() const {
    return code <= 5 && reason.size() <= kReasonBytesMax ? "" : "a known code and a short reason";
}

std::optional<std::size_t> flat_bytes(const std::vector<TensorEntry>& entries) {
    constexpr std::size_t kBytesMax = 1ULL << 40;
    std::size_t total = 0;
    for (const TensorEntry& entry : entries) {
        if (!dtype_from(static_cast<std::uint8_t>(entry.dtype)) || entry.name.empty())
            return std::nullopt;
        const auto bytes = checked_bytes(entry.dtype, entry.shape);
        if (!bytes || *bytes > kBytesMax || total + *bytes > kBytesMax) return std::nullopt;
        total += *bytes;
    }
    return total;
}

std::vector<TensorEntry> entries_of(const TensorMap& tensors) {
    std::vector<TensorEntry> entries;
    for (const NamedTensor& entry : tensors)
        entries.push_back({entry.name, entry.tensor.dtype(), entry.tensor.shape()});
    return entries;
}

std::string flatten(const TensorMap& tensors) {
    std::string bytes;
    for (const NamedTensor& entry : tensors)
        bytes.append(reinterpret_cast<const char*>(entry.tensor.data()), entry.tensor.bytes());
    return bytes;
}

TensorMap unflatten(const std::vector<TensorEntry>& entries, std::string_view bytes) {
    ECOPIPE_CHECK(flat_bytes(entries) == bytes.size());
    TensorMap tensors;
    for (const TensorEntry& entry : entries) {
        HostTensor tensor = HostTensor::allocate(entry.dtype, entry.shape);
        std::memcpy(tensor.data(), bytes.data(), tensor.bytes());
        bytes.remove_prefix(tensor.bytes());
        tensors.push_back({entry.name, std::move(tensor)});
    }
    return tensors;
}

}  // namespace ecopipe
