#pragma once
// --keys DIR | --insecure, the same in every program that talks over a network.

#include <memory>
#include <string>

#include "core/command_line.h"
#include "transport/security/endpoint.h"
#include "transport/security/key_ring.h"

namespace ecopipe {

// How a program's connections are protected: with keys, or open on loopback, or (`insecure`) open
// anywhere.
struct Security {
    std::shared_ptr<KeyRing> keys;  // null: without
    bool insecure = false;
};

void declare_security(CommandLine& line);
// Errors: kUsage when both are given; those of KeyRing::open.
[[nodiscard]] Result<Security> security_from(const CommandLine& line);

// Without keys a program talks to loopback addresses only, unless --insecure is said aloud; then it
// warns. `flag` names the option in the refusal (kUsage).
[[nodiscard]] Result<void> allow_address(const Endpoint& endpoint, const Security& security,
                                         const std::string& flag);

// The key of the peer that this program dials, named by `flag` or, without it, the only one that is
// allowed. The peer's name; "" without keys. Errors: kUsage, naming those that there are.
[[nodiscard]] Result<std::string> dialled_peer(const CommandLine& line, const Security& security,
                                               const char* flag);

}  // namespace ecopipe
