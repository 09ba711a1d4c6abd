#pragma once
// A portal with sockets: the driver (portal_driver.h) on a control port, data channels and this
// machine's clock. A TrainingEngine to the trainer.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/inbox.h"
#include "orchestrator/session/membership.h"
#include "orchestrator/session/portal_driver.h"
#include "transport/data/data_plane.h"
#include "transport/security/security.h"

namespace ecopipe {

struct SessionOptions {
    Endpoint bind;
    std::vector<std::string> devices;           // of the cluster: who may join
    std::map<std::string, EmulatedLink> links;  // emulated links of the portal's own traffic
    Security security;                          // which addresses of data ports may be dialled
    double peer_timeout_s = 5;                  // the longest silence before a device is lost
    // PortalSide's, when set.
    std::function<Result<void>()> check;
    std::function<std::vector<LostProcess>()> ended_processes;
    PortalOptions portal;
};

class ClusterSession : private PortalSide, public PortalDriver {
  public:
    [[nodiscard]] static Result<std::unique_ptr<ClusterSession>> open(NetLoop& loop,
                                                                      SessionOptions options);
    ~ClusterSession() override;

    [[nodiscard]] const Endpoint& bound() const { return bound_; }  // with the port really taken
    // The devices' words are lost afterwards.
    void end(ExitCode code, const std::string& reason) override;

  private:
    ClusterSession(NetLoop& loop, SessionOptions options);
    Result<void> bind();

    Instant now() override { return monotonic_now(); }
    std::optional<PortalEvent> next(Instant deadline) override {
        return inbox_.pop_until(deadline);
    }
    Result<void> check() override { return options_.check ? options_.check() : Result<void>(); }
    std::vector<LostProcess> ended_processes() override;
    void send(const std::string& device, std::uint64_t instance, FrameHeader header,
              PortalMessage message) override;
    void forget(const std::string& device, std::uint64_t instance) override {
        members_->forget(device, instance);
    }
    void declare_lost(const std::string& device, const std::string& how) override {
        members_->declare_lost(device, how);
    }
    void work_due(bool due) override { members_->work_due(due); }
    std::int64_t clock_offset_ns(const std::string& device) override {
        return members_->clock_offset_ns(device);
    }
    std::vector<Introduction> keys_of(const std::vector<std::string>& devices) override;

    SessionOptions options_;
    std::uint64_t run_;
    Inbox<PortalEvent> inbox_;
    NetLoop& loop_;
    std::unique_ptr<Membership> members_;
    std::unique_ptr<DataPlane> data_;
    Endpoint bound_;
    bool ended_ = false;
};

}  // namespace ecopipe
