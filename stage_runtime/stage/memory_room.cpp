#include "stage_runtime/stage/memory_room.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "core/control_groups.h"
#include "core/files.h"
#include "core/host_facts.h"
#include "core/log.h"
#include "core/units.h"

namespace ecopipe {
namespace {

constexpr double kReserveMib = 32;      // left to others
constexpr double kPressedPercent = 10;  // of the last ten seconds
constexpr std::size_t kFileBytesMax = 64;
constexpr double kMibMax = 1e9;

}  // namespace

MemoryRoom::MemoryRoom(std::string file) : file_(std::move(file)), program_mib_(resident_mib()) {}

void MemoryRoom::look_by_hand() {
    std::error_code error;
    if (file_.empty() || !std::filesystem::exists(file_, error)) {
        by_hand_mib_.reset();
        return;
    }
    const auto text = read_file(file_, kFileBytesMax);
    if (!text) return;  // it is being replaced
    double mib = 0;
    const char* end = text->data() + text->size();
    const auto [stop, failed] = std::from_chars(text->data(), end, mib);
    const bool number = failed == std::errc() && mib >= 0 && mib <= kMibMax;
    if (number && std::all_of(stop, end, [](char c) { return c == '\n' || c == ' '; })) {
        by_hand_mib_ = mib;
    } else if (*text != told_) {
        told_ = *text;
        log_warn("{}: expected a number of MiB, found '{}'; it is passed over", printable(file_),
                 printable(*text));
    }
}

MemoryBudget MemoryRoom::now(std::uint64_t live_bytes) {
    look_by_hand();
    if (by_hand_mib_) return {static_cast<std::uint64_t>(*by_hand_mib_ * kMib), true, false};
    // Freed memory that the program keeps is room for tensors, too.
    const double held_mib =
        std::max(static_cast<double>(live_bytes) / kMib, resident_mib() - program_mib_);
    const double free_mib =
        std::max(0.0, static_cast<double>(available_memory_mib()) - kReserveMib);
    return {static_cast<std::uint64_t>((held_mib + free_mib) * kMib), false,
            memory_pressure() >= kPressedPercent};
}

}  // namespace ecopipe
