#pragma once
// What all parts of one simulated run share, and what is wrong with it on purpose.

#include <fmt/format.h>

#include <string>
#include <vector>

#include "tests/sim/toy_model.h"
#include "transport/net/sim_network.h"

namespace ecopipe::sim {

// Mistakes put in on purpose, around the real machines and drivers: the checks must notice each.
enum class Mistake {
    kNone,
    kCommitWithoutAllAcks,     // the portal makes up the Done of whoever has not answered
    kReplicaOneStepOld,        // a buddy is given the state of the step before
    kOldGenerationAccepted,    // messages of a plan that is no longer in force count
    kConfirmedWithoutReplica,  // a buddy confirms what it has not got yet
    kStrangersTensorAccepted,  // a tensor counts whoever sends it
    kStaleRoster,              // a device that comes back is taken for the process it was before
    kMoveWithoutCooldown,      // layers may move again at once
    kTellsTheNextLife,         // what is meant for a process reaches the next of its name
};

struct World {
    SimNetwork& net;
    const std::vector<ToyStates>& reference;  // of the undisturbed run, before each step
    Mistake mistake = Mistake::kNone;
    ToyKind kind = ToyKind::kChain;
    int sum_blocks = 1;
    Instant end{};  // nothing takes longer
    std::vector<std::string> violations{};
    void violate(const std::string& what) { violations.push_back(what); }
    [[nodiscard]] bool is_state(std::uint64_t step, int layer, std::uint64_t state) const {
        return step < reference.size() && reference[step].at(layer) == state;
    }
    bool traced = false;  // ECOPIPE_SIM_TRACE=1: what happens, on stdout
    template <class... Values>
    void trace(fmt::format_string<Values...> text, Values&&... values) const {
        if (traced)
            fmt::print("{:9.3f} {}\n", to_ms(net.now().time_since_epoch()) / 1000,
                       fmt::format(text, std::forward<Values>(values)...));
    }
};

}  // namespace ecopipe::sim
