#include "transport/federation_messages.h"

#include <cmath>
#include <cstring>

#include "core/check.h"

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
    if (cluster.empty() || cluster.size() > kNameBytesMax)
        return "a cluster name of 1 to 128 bytes";
    for (const char c : cluster)
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7F)
            return "a cluster name without blanks";
    return program_version.size() <= kNameBytesMax && model.size() <= kReasonBytesMax
               ? ""
               : "texts within their limits";
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
    if (!std::isfinite(train_loss) || !std::isfinite(seconds) || seconds < 0)
        return "finite numbers";
    return sha256.size() == kHashChars ? "" : "a SHA-256";
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
