#pragma once
// What this device's tensors may take: as a file says by hand, else as the machine and the control
// groups of this process have it. One thread.

#include <cstdint>
#include <optional>
#include <string>

#include "stage_runtime/stage/memory_control.h"

namespace ecopipe {

class MemoryRoom {
  public:
    // To be made before any layer is loaded: what the program takes by itself is measured here.
    // `file`: its one number, MiB, counts whenever it is there; "": no file.
    explicit MemoryRoom(std::string file);
    // `live_bytes`: of tensors. A file with anything else in it is told once, and what was read
    // last stays.
    [[nodiscard]] MemoryBudget now(std::uint64_t live_bytes);

  private:
    void look_by_hand();

    std::string file_;
    double program_mib_;
    std::optional<double> by_hand_mib_;
    std::string told_;  // the bad content that was told
};

}  // namespace ecopipe
