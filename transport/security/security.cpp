#include "transport/security/security.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/log.h"

namespace ecopipe {

void declare_security(CommandLine& line) {
    line.text("keys",
              "directory of ecopipe-keygen: encrypt all traffic and talk to the peers in its "
              "allowed/ alone");
    line.flag("insecure", "accept unencrypted traffic on other addresses than loopback");
}

Result<Security> security_from(const CommandLine& line) {
    Security security;
    security.insecure = line.get_flag("insecure");
    if (!line.has("keys")) return security;
    if (security.insecure)
        return fail(ExitCode::kUsage, "--keys and --insecure exclude each other");
    ECOPIPE_ASSIGN_OR_RETURN(KeyRing ring, KeyRing::open(line.get_text("keys")));
    security.keys = std::make_shared<KeyRing>(std::move(ring));
    return security;
}

Result<void> allow_address(const Endpoint& endpoint, const Security& security,
                           const std::string& flag) {
    if (security.keys || endpoint.loopback()) return {};
    if (!security.insecure)
        return fail(ExitCode::kUsage,
                    fmt::format("{}: {} is not a loopback address: give --keys DIR, or --insecure "
                                "to leave traffic open to the network",
                                flag, endpoint.text()));
    log_warn("{}: traffic on {} is neither encrypted nor authenticated (--insecure)", flag,
             endpoint.text());
    return {};
}

Result<std::string> dialled_peer(const CommandLine& line, const Security& security,
                                 const char* flag) {
    if (!security.keys) {
        if (line.given(flag))
            return fail(ExitCode::kUsage, fmt::format("--{} goes with --keys", flag));
        return std::string();
    }
    const auto names = security.keys->allowed();
    const std::string directory = security.keys->directory();
    if (line.has(flag)) {
        std::string name = line.get_text(flag);
        if (security.keys->find(name)) return name;
        return fail(
            ExitCode::kUsage,
            fmt::format("--{}: {}/allowed has no {}.public; it has {}", flag, directory,
                        printable(name),
                        names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
    }
    if (names.size() == 1) return names.front();
    if (names.empty())
        return fail(
            ExitCode::kUsage,
            fmt::format("{}/allowed is empty: copy own.public of the machine to dial there, "
                        "as NAME.public",
                        directory));
    return fail(ExitCode::kUsage, fmt::format("--{} is missing: {}/allowed has {}", flag, directory,
                                              fmt::join(names, ", ")));
}

}  // namespace ecopipe
