#pragma once
// ecopipe-fl-server status | pause | resume | finish | admit | backup | replay: what an operator
// asks of a state directory and of the server that runs on it.

#include <string>

#include "core/result.h"

namespace ecopipe {

struct OperatorCommand {
    std::string word;
    std::string state_directory;
    std::string cluster;  // admit
    std::string to;       // backup
    bool json = false;    // status
};

[[nodiscard]] bool is_operator_command(const std::string& word);
// `status` without a running server tells what the journal knows; `backup` and `admit` work on it
// directly then; `replay` always does. Errors: kUnreachable when the command needs a server.
[[nodiscard]] Result<ExitCode> run_operator_command(const OperatorCommand& command);

}  // namespace ecopipe
