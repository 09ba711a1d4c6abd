// ecopipe-keygen: this machine's key pair.
#include <fmt/format.h>

#include "core/command_line.h"
#include "core/log.h"
#include "transport/security/key_ring.h"

namespace ecopipe {
namespace {

Result<ExitCode> run(int argc, const char* const* argv) {
    CommandLine line("ecopipe-keygen",
                     "makes this machine's key pair; an existing one is never overwritten");
    line.text("keys", "directory to keep them in");
    line.text("name", "this machine's name: a device's, a cluster's, a server's");
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    for (const char* needed : {"keys", "name"})
        if (!line.has(needed))
            return fail(ExitCode::kUsage, fmt::format("--{} is missing", needed));
    const std::string directory = line.get_text("keys");
    const std::string name = line.get_text("name");
    ECOPIPE_ASSIGN_OR_RETURN(const PublicKey key, create_keys(directory, name));
    fmt::print(
        "{}: key {}\n"
        "enrol it with a peer:  scp {}/own.public PEER:KEYS/allowed/{}.public\n"
        "enrol a peer here:     scp PEER:KEYS/own.public {}/allowed/PEER.public\n",
        name, key.fingerprint(), directory, name, directory);
    return ExitCode::kDone;
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    return ecopipe::run_program("ecopipe-keygen", [&] { return ecopipe::run(argc, argv); });
}
