#include "fl_server/admission.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "core/files.h"
#include "core/log.h"

namespace ecopipe {
namespace {

template <class T>
bool all_finite(std::string_view bytes) {
    for (std::size_t at = 0; at + sizeof(T) <= bytes.size(); at += sizeof(T)) {
        T value;
        std::memcpy(&value, bytes.data() + at, sizeof value);
        if (!std::isfinite(value)) return false;
    }
    return true;
}

}  // namespace

std::string check_announcement(const UpdateSlice& slice, const AdmissionRule& rule) {
    if (slice.base_version != rule.base_version)
        return fmt::format("it starts from version {}, expected {}", slice.base_version,
                           rule.base_version);
    if (slice.slices != 1) return fmt::format("it comes in {} slices, expected 1", slice.slices);
    if (slice.first_layer != 0 || slice.last_layer != rule.last_layer)
        return fmt::format("it covers layers {}..{}, expected 0..{}", slice.first_layer,
                           slice.last_layer, rule.last_layer);
    if (slice.bytes != rule.model_bytes)
        return fmt::format("it has {} bytes, expected {}", slice.bytes, rule.model_bytes);
    if (slice.samples == 0 || slice.samples > rule.samples_max)
        return fmt::format("it claims {} samples, expected 1 to {}", slice.samples,
                           rule.samples_max);
    return {};
}

std::string check_contents(const UpdateSlice& slice, const std::vector<TensorEntry>& entries,
                           std::string_view bytes) {
    if (bytes.size() != slice.bytes)
        return fmt::format("{} bytes came, {} were announced", bytes.size(), slice.bytes);
    if (sha256_hex(bytes) != slice.sha256) return "its bytes do not have the hash announced";
    for (const TensorEntry& entry : entries) {
        const std::size_t size = *checked_bytes(entry.dtype, entry.shape);
        const std::string_view part = bytes.substr(0, size);
        bytes.remove_prefix(size);
        const bool finite = entry.dtype == DType::kF32   ? all_finite<float>(part)
                            : entry.dtype == DType::kF64 ? all_finite<double>(part)
                                                         : true;
        if (!finite)
            return fmt::format("tensor {} has a value that is not finite", printable(entry.name));
    }
    return {};
}

}  // namespace ecopipe
