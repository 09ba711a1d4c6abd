#pragma once
// The keys of one machine: its own pair and those of the peers that it knows, from a directory
//     DIR/own.secret  DIR/own.public  DIR/allowed/NAME.public
// A file's name is its peer's name. Peers also become known when a portal introduces them; what
// allowed/ says of a name goes before that. Whoever holds own.secret is this machine and may speak
// under any name (processes that share a directory).
//
// Read by any thread before it is given to a NetLoop, by the network thread alone after.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "transport/security/key_file.h"

namespace ecopipe {

class KeyRing {
  public:
    // Errors: kBadFile for a key or directory that is missing, malformed, twice there, or that
    // others can read or change.
    [[nodiscard]] static Result<KeyRing> open(const std::string& directory);

    [[nodiscard]] const std::string& directory() const { return directory_; }
    [[nodiscard]] const KeyPair& own() const { return own_; }
    [[nodiscard]] const std::string& own_fingerprint() const { return own_fingerprint_; }
    [[nodiscard]] std::vector<std::string> allowed() const;  // names

    // The public key of a peer, or of this machine.
    [[nodiscard]] std::optional<PublicKey> find(const std::string& name) const;
    // Whose key this is; nothing for a stranger's.
    [[nodiscard]] std::optional<std::string> identify(const PublicKey& key) const;
    // Whether the key of this fingerprint is (still) the one of that name.
    [[nodiscard]] bool admits(std::string_view name, std::string_view fingerprint) const;

    // Peers that the portal vouches for, all at once: who is not among them any more is forgotten.
    // Returns the names of the peers whose keys no longer count.
    std::set<std::string> introduce(std::map<std::string, PublicKey> peers);
    // One that has shown this machine's own key: under that name it is the one to talk to.
    void introduce_own(const std::string& name);
    // Reads allowed/ again where it has changed. A file that has become unreadable counts as
    // removed, with a warning. Returns the names of the peers whose keys no longer count.
    std::set<std::string> refresh();

  private:
    struct Peer {
        PublicKey key;
        std::string fingerprint;
    };
    using Peers = std::map<std::string, Peer, std::less<>>;
    struct FileState {  // tells whether a file has changed
        std::uint64_t device = 0;
        std::uint64_t inode = 0;
        std::int64_t size = 0;
        std::int64_t modified_ns = 0;
        std::int64_t changed_ns = 0;
        friend bool operator==(const FileState&, const FileState&) = default;
    };
    KeyRing() = default;
    Result<void> read_own();
    // What allowed/ holds now; files as they are in `known` are not read again. In `strict` mode
    // the first bad file is an error, otherwise a warning.
    Result<Peers> read_allowed(bool strict);
    [[nodiscard]] const Peer* known(std::string_view name) const;
    // Brings both lists into force.
    std::set<std::string> replace(Peers allowed, Peers introduced);

    std::string directory_;
    KeyPair own_;
    std::string own_fingerprint_;
    Peers allowed_;
    Peers introduced_;
    std::set<std::string, std::less<>> own_names_;
    std::map<std::string, FileState> files_;  // of allowed/, as last read
    bool unreadable_ = false;                 // allowed/ was, when last looked at: said once
};

// Makes DIR (0700) with own.secret (0600), own.public and an empty allowed/. Errors: kUsage when a
// key is there already or the name cannot be a file's, kRunFailed when a file cannot be written.
[[nodiscard]] Result<PublicKey> create_keys(const std::string& directory, const std::string& name);

}  // namespace ecopipe
