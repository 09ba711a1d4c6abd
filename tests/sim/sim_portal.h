#pragma once
// A portal on a simulated network: the real driver, with sockets, processes and clock replaced.

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "orchestrator/session/member_book.h"
#include "orchestrator/session/portal_driver.h"
#include "planner/schedule/schedule.h"
#include "tests/sim/sim_channels.h"
#include "tests/sim/world.h"

namespace ecopipe::sim {

class SimPortal : private PortalSide,
                  private ControlPort,
                  private SessionObserver,
                  public PortalDriver {
  public:
    SimPortal(World& world, std::set<std::string> devices, Placing placing = Placing::kOneEach);
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
    Result<void> measure_links();
    void tick(Instant due);
    void on_message(const SimMessage& message);
    // There and back, a chain's inputs and labels are for the first device alone: the portal's.
    void check_send(const std::string& peer, const TensorAddress& address);

    Instant now() override { return world_.net.now(); }
    std::optional<PortalEvent> next(Instant deadline) override;
    Result<void> check() override;
    std::vector<LostProcess> ended_processes() override { return {}; }
    void send(const std::string& device, std::uint64_t instance, FrameHeader header,
              PortalMessage message) override;
    void forget(const std::string& device, std::uint64_t instance) override {
        book_.forget(device, instance);
    }
    void declare_lost(const std::string&, const std::string&) override {}
    void work_due(bool due) override { book_.work_due(due, world_.net.now()); }
    std::int64_t clock_offset_ns(const std::string&) override { return 0; }
    std::vector<Introduction> keys_of(const std::vector<std::string>&) override { return {}; }

    bool send(std::string_view connection, const FrameHeader& header,
              const std::string& body) override;
    void tell(PortalEvent event) override;
    void tell_of_stranger(const std::string&) override {}
    bool speaks_for(std::string_view connection, std::string_view device) override {
        return connection.starts_with(device);
    }
    void admitted(std::string_view, const std::string&) override {}

    void device_joined(const std::string&, double) override {}
    void device_gone(const std::string&, const std::string&) override {}
    void device_leaves(const std::string&) override {}
    void failed(const std::string& cause) override;
    void plan_in_force(const Plan& plan, const std::string& cause) override;

    World& world_;
    std::set<std::string> devices_;
    Placing placing_;
    std::uint64_t run_ = 0;
    SimChannels channels_;
    MemberBook book_;
    // For mistakes only: of each device, the instance that it joined as at first and at last.
    std::map<std::string, std::pair<std::uint64_t, std::uint64_t>> instances_;
    std::deque<PortalEvent> inbox_;
    std::uint64_t recoveries_ = 0;
    std::uint64_t moves_made_ = 0;
    std::uint64_t links_measured_ = 0;
    std::optional<std::uint64_t> last_move_;  // its step, since the last recovery
};

}  // namespace ecopipe::sim
