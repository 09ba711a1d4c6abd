#pragma once
// Executes a journal anew: every fold and every recipe in order, from the updates that were kept,
// and compares each version's hash with the one that the server recorded. Needs a state whose
// server ran with --keep-updates.

#include <string>

#include "core/result.h"

namespace ecopipe {

struct ReplayOutcome {
    std::uint64_t versions = 0;
    std::uint64_t updates = 0;
    std::uint64_t different = 0;  // versions whose hash is another
};

// Reads `state_directory`, also of a running server; writes below `scratch`, which it empties
// before and after. Errors: kBadFile when the journal or the updates are not all there, naming the
// first that is missing.
[[nodiscard]] Result<ReplayOutcome> replay_journal(const std::string& state_directory,
                                                   const std::string& scratch);

}  // namespace ecopipe
