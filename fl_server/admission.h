#pragma once
// Is this update fit to be aggregated? Pure.

#include <string>
#include <string_view>

#include "transport/federation_messages.h"

namespace ecopipe {

// What the server holds an update against.
struct AdmissionRule {
    std::uint64_t base_version = 0;
    std::size_t model_bytes = 0;
    std::uint32_t last_layer = 0;  // of the model
    std::uint64_t samples_max = 1ULL << 40;
};

// Each returns the reason for a rejection, "" when there is none.
[[nodiscard]] std::string check_announcement(const UpdateSlice& slice, const AdmissionRule& rule);
// The whole bytes against the announcement: size, hash, every float finite.
[[nodiscard]] std::string check_contents(const UpdateSlice& slice,
                                         const std::vector<TensorEntry>& entries,
                                         std::string_view bytes);

}  // namespace ecopipe
