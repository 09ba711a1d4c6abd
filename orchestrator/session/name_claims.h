#pragma once
// Two processes that say they are one device: a stage that was started again before its old
// connection is known to be gone, or a second one under a name that is taken. Only the first can be
// told from the second by asking: who was killed before the newcomer spoke answers no ping that was
// sent after it did. Pure: no sockets, no clock.

#include <map>
#include <string>
#include <string_view>

#include "core/clock.h"

namespace ecopipe {

class NameClaims {
  public:
    enum class Verdict {
        kWait,   // the holder has yet to answer, or to be lost; the newcomer knocks on
        kTaken,  // the holder has answered since
    };
    // The newcomer at connection `from` says that it is `device`, which another connection holds.
    // The holder is to be pinged at `now` or later. A newcomer of another connection begins anew.
    Verdict asked(const std::string& device, std::string_view from, Instant now);
    // The holder has answered a ping that was sent at `sent`.
    void answered(const std::string& device, Instant sent);
    // The name is free, or has another holder.
    void settled(const std::string& device) { claims_.erase(device); }

  private:
    struct Claim {
        std::string from;
        Instant since;
        bool refuted = false;
    };
    std::map<std::string, Claim> claims_;  // one a device: names that hold, so bounded
};

}  // namespace ecopipe
