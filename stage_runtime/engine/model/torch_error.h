#pragma once
// What an exception of torch says, as one line for people. Plain.

#include <exception>
#include <string>

namespace ecopipe {

// Without torch's stack: the line that says what happened (TorchScript errors end in it, others
// begin with it), made safe for a log.
[[nodiscard]] std::string torch_message(const std::exception& error);

}  // namespace ecopipe
