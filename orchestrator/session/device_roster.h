#pragma once
// Who is here: which devices have joined, which channels stand, who is about to leave, and who does
// not reach whom. Pure; one thread.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/clock.h"
#include "orchestrator/session/reachability.h"
#include "transport/wire/messages.h"

namespace ecopipe {

// A device that has joined.
struct JoinedDevice {
    Hello hello;
    std::string data_endpoint;
};

class DeviceRoster {
  public:
    // A new process: nothing that was known of an earlier one's channels counts.
    void join(const std::string& device, JoinedDevice joined);
    void gone(const std::string& device);
    void attach(const std::string& device, std::uint64_t instance) { attached_[device] = instance; }
    void leaves(const std::string& device) { leaving_.insert(device); }

    [[nodiscard]] const std::map<std::string, JoinedDevice>& joined() const { return joined_; }
    [[nodiscard]] const JoinedDevice* find(const std::string& device) const;
    [[nodiscard]] bool has(const std::string& device) const { return joined_.contains(device); }
    [[nodiscard]] std::vector<std::string> devices() const;
    // Whether the portal's channel with the device as it is now stands.
    [[nodiscard]] bool attached(const std::string& device) const;
    [[nodiscard]] const std::set<std::string>& leaving() const { return leaving_; }
    // Joined, not about to leave, not left out.
    [[nodiscard]] std::set<std::string> usable() const;
    // The same with those about to leave: better than none.
    [[nodiscard]] std::set<std::string> present() const;

    // What a device tells of those that it does not reach; both ends tell, one after the other.
    void told_unreached(const std::string& device, const std::vector<std::string>& others,
                        Instant now);
    // Of these devices, those whose channel with the portal does not stand.
    void note_unattached(const std::set<std::string>& devices);
    // When the first was told, of what is not settled yet.
    [[nodiscard]] std::optional<Instant> unreached_since() const { return unreached_since_; }
    void not_run(Duration time);  // that long nobody could tell
    // A configuration begins, or ends: what is told from now on is of another.
    void unreached_settled() { unreached_since_.reset(); }
    // All channels have come to stand: pairs of those that take part are no longer.
    void all_reached();
    [[nodiscard]] const std::set<UnreachedPair>& unreached() const { return unreached_; }
    [[nodiscard]] bool left_out(const std::string& device) const {
        return left_out_.contains(device);
    }
    // Those of `devices` that were not left out before.
    [[nodiscard]] std::vector<std::string> leave_out(const std::set<std::string>& devices);

  private:
    void forget_unreached(const std::string& device);

    std::map<std::string, JoinedDevice> joined_;
    std::map<std::string, std::uint64_t> attached_;  // the other end's instance
    std::set<std::string> leaving_;
    std::set<UnreachedPair> unreached_;  // of devices that have joined
    std::optional<Instant> unreached_since_;
    std::set<std::string> left_out_;  // joined, but others do not reach it, or it them
};

}  // namespace ecopipe
