#include "transport/security/key_file.h"

#include <fmt/format.h>
#include <sodium.h>
#include <zmq.h>

#include <vector>

#include "core/check.h"
#include "core/files.h"
#include "transport/limits.h"

namespace ecopipe {
namespace {

constexpr std::string_view kPublicFormat = "ecopipe-public-key/1";
constexpr std::string_view kSecretFormat = "ecopipe-secret-key/1";

using KeyArray = std::array<unsigned char, kKeyBytes>;

std::string z85(const KeyArray& key) {
    std::array<char, kKeyTextBytes + 1> text{};
    ECOPIPE_CHECK(zmq_z85_encode(text.data(), key.data(), kKeyBytes) != nullptr);
    std::string out(text.data(), kKeyTextBytes);
    sodium_memzero(text.data(), text.size());
    return out;
}

bool from_z85(std::string_view text, KeyArray& key) {
    if (text.size() != kKeyTextBytes || text.find('\0') != std::string_view::npos) return false;
    std::array<char, kKeyTextBytes + 1> terminated{};
    text.copy(terminated.data(), kKeyTextBytes);
    const bool good = zmq_z85_decode(key.data(), terminated.data()) != nullptr;
    sodium_memzero(terminated.data(), terminated.size());
    return good;
}

// The lines of a key file; the last may lack its newline, and a file from elsewhere may have \r\n.
std::vector<std::string_view> lines_of(std::string_view text) {
    std::vector<std::string_view> lines;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        if (line.ends_with('\r')) line.remove_suffix(1);
        lines.push_back(line);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return lines;
}

// The lines after the first, which must name the format.
Result<std::vector<std::string_view>> body_lines(std::string_view text, std::string_view format,
                                                 std::size_t lines, const std::string& place) {
    const auto bad = [&](std::string what) {
        return fail(ExitCode::kBadFile, fmt::format("{}: {}", place, what));
    };
    if (text.size() > kKeyFileBytesMax)
        return bad(fmt::format("expected a key file of at most {} bytes", kKeyFileBytesMax));
    auto found = lines_of(text);
    const std::string_view kind = format.substr(0, format.find('/') + 1);
    if (found.empty() || !found[0].starts_with(kind))
        return bad(fmt::format("expected {} in the first line", format));
    if (found[0] != format)
        return fail(
            ExitCode::kMismatch,
            fmt::format("{}: expected the format {}, found another version", place, format));
    if (found.size() != lines) return bad(fmt::format("expected {} lines", lines));
    found.erase(found.begin());
    return found;
}

Result<std::string_view> field(std::string_view line, std::string_view name,
                               const std::string& place) {
    if (!line.starts_with(name) || !line.substr(name.size()).starts_with(": "))
        return fail(ExitCode::kBadFile, fmt::format("{}: expected a line {}: ...", place, name));
    return line.substr(name.size() + 2);
}

}  // namespace

std::string PublicKey::text() const { return z85(bytes); }

std::string PublicKey::fingerprint() const {
    return sha256_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()}).substr(0, 16);
}

SecretKey::SecretKey(SecretKey&& other) noexcept : bytes_(other.bytes_) { other.wipe(); }
SecretKey& SecretKey::operator=(SecretKey&& other) noexcept {
    if (this != &other) {
        bytes_ = other.bytes_;
        other.wipe();
    }
    return *this;
}
SecretKey::~SecretKey() { wipe(); }
void SecretKey::wipe() { sodium_memzero(bytes_.data(), bytes_.size()); }

KeyPair make_key_pair(std::string name) {
    ECOPIPE_CHECK(sodium_init() >= 0);
    KeyArray secret{};
    KeyPair pair;
    pair.name = std::move(name);
    ECOPIPE_CHECK(crypto_box_keypair(pair.public_key.bytes.data(), secret.data()) == 0);
    pair.secret_key = SecretKey(secret);
    sodium_memzero(secret.data(), secret.size());
    return pair;
}

std::string check_key_name(std::string_view name) {
    if (name.empty() || name.size() > kNameBytesMax) return "a name of 1 to 128 bytes";
    if (name.front() == '.' || name.front() == '@' || name.front() == '-')
        return "a name that begins with none of . @ -";
    for (const char c : name)
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7F || c == '/')
            return "a name without blanks and /";
    return {};
}

Result<PublicKey> parse_key_text(std::string_view text, const std::string& place) {
    PublicKey key;
    if (!from_z85(text, key.bytes))
        return fail(ExitCode::kBadFile, fmt::format("{}: expected a key of {} characters of Z85",
                                                    place, kKeyTextBytes));
    return key;
}

Result<PublicKey> parse_public_key(std::string_view text, const std::string& place) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto lines, body_lines(text, kPublicFormat, 2, place));
    return parse_key_text(lines[0], place);
}

Result<KeyPair> parse_secret_key(std::string_view text, const std::string& place) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto lines, body_lines(text, kSecretFormat, 4, place));
    KeyPair pair;
    ECOPIPE_ASSIGN_OR_RETURN(pair.name, field(lines[0], "name", place));
    if (const std::string expected = check_key_name(pair.name); !expected.empty())
        return fail(ExitCode::kBadFile, fmt::format("{}: name: expected {}", place, expected));
    ECOPIPE_ASSIGN_OR_RETURN(const auto public_text, field(lines[1], "public", place));
    ECOPIPE_ASSIGN_OR_RETURN(pair.public_key, parse_key_text(public_text, place));
    ECOPIPE_ASSIGN_OR_RETURN(const auto secret_text, field(lines[2], "secret", place));
    KeyArray secret{};
    PublicKey derived;
    const bool good = from_z85(secret_text, secret) &&
                      crypto_scalarmult_base(derived.bytes.data(), secret.data()) == 0;
    pair.secret_key = SecretKey(secret);
    sodium_memzero(secret.data(), secret.size());
    if (!good || derived != pair.public_key)
        return fail(ExitCode::kBadFile, place + ": expected the secret key of its public key");
    return pair;
}

std::string public_key_file(const PublicKey& key) {
    return fmt::format("{}\n{}\n", kPublicFormat, key.text());
}

std::string secret_key_file(const KeyPair& pair) {
    return fmt::format("{}\nname: {}\npublic: {}\nsecret: {}\n", kSecretFormat, pair.name,
                       pair.public_key.text(), z85(pair.secret_key.bytes()));
}

}  // namespace ecopipe
