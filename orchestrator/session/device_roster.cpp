#include "orchestrator/session/device_roster.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace ecopipe {

void DeviceRoster::join(const std::string& device, JoinedDevice joined) {
    joined_[device] = std::move(joined);
    attached_.erase(device);
    forget_unreached(device);
}

void DeviceRoster::gone(const std::string& device) {
    joined_.erase(device);
    attached_.erase(device);
    leaving_.erase(device);
    forget_unreached(device);
}

const JoinedDevice* DeviceRoster::find(const std::string& device) const {
    const auto found = joined_.find(device);
    return found == joined_.end() ? nullptr : &found->second;
}

std::vector<std::string> DeviceRoster::devices() const {
    std::vector<std::string> out;
    for (const auto& [device, joined] : joined_) out.push_back(device);
    return out;
}

bool DeviceRoster::attached(const std::string& device) const {
    const JoinedDevice* joined = find(device);
    const auto attached = attached_.find(device);
    return joined != nullptr && attached != attached_.end() &&
           attached->second == joined->hello.instance;
}

std::set<std::string> DeviceRoster::usable() const {
    std::set<std::string> devices = present();
    for (const std::string& device : leaving_) devices.erase(device);
    return devices;
}

std::set<std::string> DeviceRoster::present() const {
    std::set<std::string> devices;
    for (const auto& [device, joined] : joined_)
        if (!left_out_.contains(device)) devices.insert(device);
    return devices;
}

void DeviceRoster::told_unreached(const std::string& device, const std::vector<std::string>& others,
                                  Instant now) {
    if (!joined_.contains(device)) return;  // gone since it said so
    for (const std::string& other : others)
        if (joined_.contains(other) && other != device)
            unreached_.insert({std::min(device, other), std::max(device, other)});
    if (!unreached_since_ && !unreached_.empty()) unreached_since_ = now;
}

void DeviceRoster::note_unattached(const std::set<std::string>& devices) {
    for (const std::string& device : devices)
        if (joined_.contains(device) && !attached(device)) unreached_.insert({kPortalPeer, device});
}

void DeviceRoster::not_run(Duration time) {
    if (unreached_since_) *unreached_since_ += time;
}

void DeviceRoster::all_reached() {
    std::erase_if(unreached_, [&](const UnreachedPair& pair) {
        return !left_out_.contains(pair.from) && !left_out_.contains(pair.to);
    });
}

std::vector<std::string> DeviceRoster::leave_out(const std::set<std::string>& devices) {
    std::vector<std::string> fresh;
    std::set_difference(devices.begin(), devices.end(), left_out_.begin(), left_out_.end(),
                        std::back_inserter(fresh));
    left_out_.insert(fresh.begin(), fresh.end());
    return fresh;
}

void DeviceRoster::forget_unreached(const std::string& device) {
    std::erase_if(unreached_, [&](const UnreachedPair& pair) {
        return pair.from == device || pair.to == device;
    });
    if (unreached_.empty()) unreached_since_.reset();
    std::erase_if(left_out_, [&](const std::string& out) {
        return std::none_of(unreached_.begin(), unreached_.end(), [&](const UnreachedPair& pair) {
            return pair.from == out || pair.to == out;
        });
    });
}

}  // namespace ecopipe
