#pragma once
// --local: one ecopipe-stage process per device on this machine, emulating each device's speed and
// links.

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "core/result.h"
#include "planner/cost/cluster.h"
#include "transport/net/link_shaper.h"
#include "transport/security/endpoint.h"
#include "transport/security/security.h"

namespace ecopipe {

struct LocalStage {
    std::string device;
    int threads = 1;
    double slowdown = 1;
    std::map<std::string, EmulatedLink> links;  // to other devices
    int core = -1;                              // pinned to it, unless negative
    std::string memory_budget{};                // its --memory-budget; "": none
};

// Owns the processes: the destructor ends what is left, by pid, and waits for it. They also die
// with this process.
class LocalLauncher {
  public:
    LocalLauncher() = default;
    LocalLauncher(const LocalLauncher&) = delete;
    LocalLauncher& operator=(const LocalLauncher&) = delete;
    ~LocalLauncher();

    // The program stands beside this one's executable.
    [[nodiscard]] Result<void> start(const Endpoint& portal, const std::vector<LocalStage>& stages,
                                     const std::string& models_directory, const Security& security,
                                     const std::string& log_level);
    // An error naming the device when one of the processes has ended.
    [[nodiscard]] Result<void> check();
    // Devices whose process has ended since the last call, and how.
    [[nodiscard]] std::vector<std::pair<std::string, std::string>> ended();
    // Gives them time to end by themselves, then ends them.
    void stop(double patience_s);

  private:
    std::map<std::string, pid_t> processes_;
};

// The stages of a cluster as cluster.yaml describes them.
[[nodiscard]] std::vector<LocalStage> local_stages(const Cluster& cluster);
// Gives every stage of one thread a core, busy ones first, each to the core with the least to do. A
// stage that wanders between cores computes up to a third slower, and an emulated one multiplies
// that.
void pin_to_cores(std::vector<LocalStage>& stages);
// How much slower than this machine the cluster's devices are, in the mean, as they are emulated.
[[nodiscard]] double mean_slowdown(const Cluster& cluster);
// The links of the portal program's own traffic, which leaves from the portal's device.
[[nodiscard]] std::map<std::string, EmulatedLink> portal_links(const Cluster& cluster);

}  // namespace ecopipe
