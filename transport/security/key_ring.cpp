#include "transport/security/key_ring.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/files.h"
#include "core/log.h"
#include "transport/limits.h"

namespace ecopipe {
namespace {

constexpr std::string_view kPublicSuffix = ".public";
constexpr mode_t kOthersMayAnything = 077;
constexpr mode_t kOthersMayWrite = 022;

std::int64_t ns(const timespec& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; }

// Refuses what others may read (or only change, for what is public) and what is another user's.
Result<struct stat> check_private(const std::string& path, mode_t forbidden, bool directory) {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0)
        return fail(ExitCode::kBadFile, fmt::format("{}: {}", path, std::strerror(errno)));
    if (directory != S_ISDIR(info.st_mode))
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: expected a {}", path, directory ? "directory" : "file"));
    if (info.st_uid != ::geteuid() && info.st_uid != 0)
        return fail(ExitCode::kBadFile, path + ": belongs to another user");
    if ((info.st_mode & forbidden) != 0)
        return fail(
            ExitCode::kBadFile,
            fmt::format("{}: others may {} it (mode {:04o}): chmod {} {}", path,
                        forbidden == kOthersMayWrite ? "change" : "read", info.st_mode & 07777,
                        forbidden == kOthersMayWrite ? "go-w" : "go-rwx", path));
    return info;
}

Result<void> create_file(const std::string& path, std::string_view text, mode_t mode) {
    const int file =
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (file < 0)
        return fail(errno == EEXIST ? ExitCode::kUsage : ExitCode::kRunFailed,
                    fmt::format("{}: {}", path,
                                errno == EEXIST ? "is there already, and is never overwritten"
                                                : std::strerror(errno)));
    // So short a text is written at once or not at all.
    const bool written =
        ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
        ::fsync(file) == 0;
    ::close(file);
    if (written) return {};
    ::unlink(path.c_str());
    return fail(ExitCode::kRunFailed, path + ": cannot be written");
}

}  // namespace

Result<KeyRing> KeyRing::open(const std::string& directory) {
    KeyRing ring;
    ring.directory_ = directory;
    ECOPIPE_RETURN_IF_ERROR(check_private(directory, kOthersMayAnything, true));
    ECOPIPE_RETURN_IF_ERROR(ring.read_own());
    ECOPIPE_ASSIGN_OR_RETURN(ring.allowed_, ring.read_allowed(true));
    return ring;
}

Result<void> KeyRing::read_own() {
    const std::string path = directory_ + "/own.secret";
    ECOPIPE_RETURN_IF_ERROR(check_private(path, kOthersMayAnything, false));
    ECOPIPE_ASSIGN_OR_RETURN(std::string text, read_file(path, kKeyFileBytesMax));
    auto pair = parse_secret_key(text, path);
    sodium_memzero(text.data(), text.size());
    if (!pair) return tl::unexpected<Error>(pair.error());
    own_ = std::move(*pair);
    own_fingerprint_ = own_.public_key.fingerprint();
    own_names_ = {own_.name};
    return {};
}

Result<KeyRing::Peers> KeyRing::read_allowed(bool strict) {
    const std::string directory = directory_ + "/allowed";
    ECOPIPE_RETURN_IF_ERROR(check_private(directory, kOthersMayWrite, true));
    std::error_code error;
    std::map<std::string, FileState> files;
    Peers peers;
    std::map<PublicKey, std::string> names;
    const auto take = [&](const std::string& file, const std::string& name) -> Result<void> {
        ECOPIPE_ASSIGN_OR_RETURN(const auto info, check_private(file, kOthersMayWrite, false));
        const FileState state{info.st_dev, info.st_ino, info.st_size, ns(info.st_mtim),
                              ns(info.st_ctim)};
        const auto before = files_.find(name);
        const bool unchanged = before != files_.end() && before->second == state;
        files[name] = state;
        Peer peer;
        if (const auto known = allowed_.find(name); unchanged) {
            if (known == allowed_.end()) return {};  // bad as it was
            peer = known->second;
        } else {
            if (const std::string expected = check_key_name(name); !expected.empty())
                return fail(ExitCode::kBadFile, fmt::format("{}: expected {}", file, expected));
            ECOPIPE_ASSIGN_OR_RETURN(const std::string text, read_file(file, kKeyFileBytesMax));
            ECOPIPE_ASSIGN_OR_RETURN(peer.key, parse_public_key(text, file));
            peer.fingerprint = peer.key.fingerprint();
        }
        if (const auto [at, fresh] = names.emplace(peer.key, name); !fresh)
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: has the same key as {}", file, at->second));
        if (peer.key == own_.public_key && name != own_.name)
            return fail(
                ExitCode::kBadFile,
                fmt::format("{}: is this machine's own key, whose name is {}", file, own_.name));
        if (peers.size() == kAllowedKeysMax)
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: expected at most {} keys", directory, kAllowedKeysMax));
        peers[name] = std::move(peer);
        return {};
    };
    std::set<std::string> listed;  // sorted, so that of two files with one key the same one counts
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
        const std::string file = entry.path().filename().string();
        if (file.ends_with(kPublicSuffix) && !file.starts_with('.')) listed.insert(file);
    }
    if (error) return fail(ExitCode::kBadFile, fmt::format("{}: {}", directory, error.message()));
    for (const std::string& file : listed) {
        const auto taken =
            take(directory + "/" + file, file.substr(0, file.size() - kPublicSuffix.size()));
        if (taken) continue;
        if (strict) return tl::unexpected<Error>(taken.error());
        log_warn("keys: {}: ignored", taken.error().message);
    }
    files_ = std::move(files);
    return peers;
}

std::vector<std::string> KeyRing::allowed() const {
    std::vector<std::string> names;
    for (const auto& [name, peer] : allowed_) names.push_back(name);
    return names;
}

const KeyRing::Peer* KeyRing::known(std::string_view name) const {
    if (const auto peer = allowed_.find(name); peer != allowed_.end()) return &peer->second;
    if (const auto peer = introduced_.find(name); peer != introduced_.end()) return &peer->second;
    return nullptr;
}

std::optional<PublicKey> KeyRing::find(const std::string& name) const {
    if (own_names_.contains(name)) return own_.public_key;
    if (const Peer* peer = known(name)) return peer->key;
    return std::nullopt;
}

std::optional<std::string> KeyRing::identify(const PublicKey& key) const {
    if (key == own_.public_key) return own_.name;
    for (const auto& [name, peer] : allowed_)
        if (peer.key == key) return name;
    for (const auto& [name, peer] : introduced_)
        if (peer.key == key && !allowed_.contains(name)) return name;
    return std::nullopt;
}

bool KeyRing::admits(std::string_view name, std::string_view fingerprint) const {
    if (fingerprint == own_fingerprint_) return name == own_.name;
    const Peer* peer = known(name);
    return peer != nullptr && peer->fingerprint == fingerprint;
}

std::set<std::string> KeyRing::replace(Peers allowed, Peers introduced) {
    std::map<std::string, std::string> before;
    for (const Peers* peers : {&introduced_, &allowed_})
        for (const auto& [name, peer] : *peers) before[name] = peer.fingerprint;
    allowed_ = std::move(allowed);
    introduced_ = std::move(introduced);
    std::set<std::string> gone;
    for (const auto& [name, fingerprint] : before) {
        const Peer* now = known(name);
        if (now == nullptr || now->fingerprint != fingerprint) gone.insert(name);
    }
    return gone;
}

std::set<std::string> KeyRing::introduce(std::map<std::string, PublicKey> peers) {
    Peers introduced;
    own_names_ = {own_.name};
    for (auto& [name, key] : peers) {
        if (key == own_.public_key) {
            introduce_own(name);
            continue;
        }
        if (const auto here = allowed_.find(name);
            here != allowed_.end() && here->second.key != key)
            log_warn("keys: the portal names another key for {} than {}/allowed does, which counts",
                     name, directory_);
        introduced[name] = {key, key.fingerprint()};
    }
    return replace(allowed_, std::move(introduced));
}

void KeyRing::introduce_own(const std::string& name) { own_names_.insert(name); }

std::set<std::string> KeyRing::refresh() {
    auto allowed = read_allowed(false);
    if (!allowed) {
        if (!std::exchange(unreadable_, true))
            log_warn("keys: {}: nobody is allowed until that is mended", allowed.error().message);
        files_.clear();
        return replace({}, introduced_);
    }
    unreadable_ = false;
    return replace(std::move(*allowed), introduced_);
}

Result<PublicKey> create_keys(const std::string& directory, const std::string& name) {
    if (const std::string expected = check_key_name(name); !expected.empty())
        return fail(ExitCode::kUsage, fmt::format("--name: expected {}", expected));
    std::error_code error;
    const bool fresh = std::filesystem::create_directories(directory, error);
    if (!error && fresh)
        std::filesystem::permissions(directory, std::filesystem::perms::owner_all, error);
    if (error) return fail(ExitCode::kRunFailed, fmt::format("{}: {}", directory, error.message()));
    ECOPIPE_RETURN_IF_ERROR(check_private(directory, kOthersMayAnything, true));
    if (::mkdir((directory + "/allowed").c_str(), 0700) != 0 && errno != EEXIST)
        return fail(ExitCode::kRunFailed,
                    fmt::format("{}/allowed: {}", directory, std::strerror(errno)));
    if (std::filesystem::exists(directory + "/own.public", error))
        return fail(ExitCode::kUsage,
                    directory + "/own.public: is there already, and is never overwritten");
    const KeyPair pair = make_key_pair(name);
    std::string secret = secret_key_file(pair);
    const auto written = create_file(directory + "/own.secret", secret, 0600);
    sodium_memzero(secret.data(), secret.size());
    ECOPIPE_RETURN_IF_ERROR(written);
    ECOPIPE_RETURN_IF_ERROR(
        create_file(directory + "/own.public", public_key_file(pair.public_key), 0644));
    return pair.public_key;
}

}  // namespace ecopipe
