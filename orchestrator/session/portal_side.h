#pragma once
// What a portal's driver stands on: a clock, what comes, and the devices that it speaks to.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/clock.h"
#include "core/result.h"
#include "orchestrator/session/portal_event.h"

namespace ecopipe {

using PortalMessage = std::variant<ProbeLink, Introduce, Configure, Begin, Commit, Fetch, End>;

struct LostProcess {
    std::string device;
    std::string how;
};

// One thread.
class PortalSide {
  public:
    PortalSide() = default;
    PortalSide(const PortalSide&) = delete;
    PortalSide& operator=(const PortalSide&) = delete;
    virtual ~PortalSide() = default;

    [[nodiscard]] virtual Instant now() = 0;
    // The oldest event that has not been handled, waited for until the deadline.
    [[nodiscard]] virtual std::optional<PortalEvent> next(Instant deadline) = 0;
    // Asked at every turn of a wait: an error ends it (a signal came).
    [[nodiscard]] virtual Result<void> check() = 0;
    // Asked likewise: processes that have ended by themselves since the last time.
    [[nodiscard]] virtual std::vector<LostProcess> ended_processes() = 0;

    // For the device as it joined, as that instance. Lost when it has not, when its connection is
    // gone, or when another instance has joined since, of which the driver is yet to be told: what
    // was meant for the life before is not for that one. The run is filled in.
    virtual void send(const std::string& device, std::uint64_t instance, FrameHeader header,
                      PortalMessage message) = 0;
    // A device that left or failed by its own word: no Lost is told.
    virtual void forget(const std::string& device, std::uint64_t instance) = 0;
    // One that is known to be gone from elsewhere is lost now.
    virtual void declare_lost(const std::string& device, const std::string& how) = 0;
    // Answers are due from now on, or no more; every call counts as progress.
    virtual void work_due(bool due) = 0;
    [[nodiscard]] virtual std::int64_t clock_offset_ns(const std::string& device) = 0;
    // The keys of those among these that have one; none without keys.
    [[nodiscard]] virtual std::vector<Introduction> keys_of(
        const std::vector<std::string>& devices) = 0;
};

}  // namespace ecopipe
