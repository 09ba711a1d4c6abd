#pragma once
// A portal on a simulated network: the real driver, with sockets, processes and clock replaced.

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "orchestrator/session/liveness.h"
#include "orchestrator/session/portal_driver.h"
#include "tests/sim/sim_channels.h"
#include "tests/sim/world.h"

namespace ecopipe::sim {

class SimPortal : private PortalSide, private SessionObserver, public PortalDriver {
  public:
    SimPortal(World& world, std::set<std::string> devices, bool sliced = false);
    void start();
    [[nodiscard]] std::uint64_t recoveries() const { return recoveries_; }
    [[nodiscard]] std::uint64_t moves() const { return moves_made_; }
    [[nodiscard]] std::uint64_t links_measured() const { return links_measured_; }

    // Waits for devices and plans over them first, as the program does.
    Result<void> load(const TensorMap& state, std::uint64_t step) override;
    Result<TensorMap> state(bool optimizer_state) override;
    std::vector<ClusterEvent> take_events() override;
    void end(ExitCode, const std::string&) override {}

  private:
    struct Member {
        std::uint64_t connection = 0;
        std::uint64_t instance = 0;
    };
    Result<void> measure_links();
    // What a control port does of itself.
    void tick();
    void on_message(const SimMessage& message);
    void on_hello(const SimMessage& message);
    void lose(const std::string& device, const std::string& how);
    template <class Message>
    void send_now(const std::string& to, std::uint64_t connection, FrameHeader head,
                  const Message& message);

    Instant now() override { return world_.net.now(); }
    std::optional<PortalEvent> next(Instant deadline) override;
    Result<void> check() override;
    std::vector<LostProcess> ended_processes() override { return {}; }
    void send(const std::string& device, std::uint64_t instance, FrameHeader header,
              PortalMessage message) override;
    void forget(const std::string& device, std::uint64_t instance) override;
    void declare_lost(const std::string&, const std::string&) override {}
    void work_due(bool due) override { liveness_.work_due(due, world_.net.now()); }
    std::int64_t clock_offset_ns(const std::string&) override { return 0; }
    std::vector<Introduction> keys_of(const std::vector<std::string>&) override { return {}; }

    void device_joined(const std::string&, double) override {}
    void device_gone(const std::string&, const std::string&) override {}
    void device_leaves(const std::string&) override {}
    void failed(const std::string& cause) override;
    void plan_in_force(const Plan& plan, const std::string& cause) override;

    World& world_;
    std::set<std::string> devices_;
    bool sliced_;
    std::uint64_t run_ = 0;
    SimChannels channels_;
    Liveness liveness_;
    std::map<std::string, Member> members_;
    std::map<std::string, std::uint64_t> first_instance_;  // for a mistake only
    std::deque<PortalEvent> inbox_;
    std::uint64_t recoveries_ = 0;
    std::uint64_t moves_made_ = 0;
    std::uint64_t links_measured_ = 0;
    std::optional<std::uint64_t> last_move_;  // its step, since the last recovery
};

}  // namespace ecopipe::sim
