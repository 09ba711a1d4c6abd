#pragma once
// CURVE key pairs and the files that hold them. A public key's file is two lines:
//     ecopipe-public-key/1
//     <the key, 40 characters of Z85 (ZeroMQ RFC 32)>
// and a secret one's four: "ecopipe-secret-key/1", "name: NAME", "public: <Z85>", "secret: <Z85>".
// No error text carries a byte of a key file.

#include <array>
#include <compare>
#include <cstddef>
#include <string>
#include <string_view>

#include "core/result.h"

namespace ecopipe {

inline constexpr std::size_t kKeyBytes = 32;
inline constexpr std::size_t kKeyTextBytes = 40;

struct PublicKey {
    std::array<unsigned char, kKeyBytes> bytes{};
    [[nodiscard]] std::string text() const;  // Z85
    // Names a key to people: the first 16 hexadecimal digits of its SHA-256.
    [[nodiscard]] std::string fingerprint() const;
    friend auto operator<=>(const PublicKey&, const PublicKey&) = default;
};

// Wiped when it goes.
class SecretKey {
  public:
    SecretKey() = default;
    explicit SecretKey(const std::array<unsigned char, kKeyBytes>& bytes) : bytes_(bytes) {}
    SecretKey(const SecretKey&) = delete;
    SecretKey& operator=(const SecretKey&) = delete;
    SecretKey(SecretKey&& other) noexcept;
    SecretKey& operator=(SecretKey&& other) noexcept;
    ~SecretKey();
    [[nodiscard]] const std::array<unsigned char, kKeyBytes>& bytes() const { return bytes_; }

  private:
    void wipe();
    std::array<unsigned char, kKeyBytes> bytes_{};
};

struct KeyPair {
    std::string name;  // of the machine that they belong to
    PublicKey public_key;
    SecretKey secret_key;
};

[[nodiscard]] KeyPair make_key_pair(std::string name);

// What a name may be that becomes a file's: as a reason, empty when it may.
[[nodiscard]] std::string check_key_name(std::string_view name);

// `place` is told in errors (kBadFile, and kMismatch for a newer format).
[[nodiscard]] Result<PublicKey> parse_public_key(std::string_view text, const std::string& place);
// Also refuses a public key that is not the secret one's.
[[nodiscard]] Result<KeyPair> parse_secret_key(std::string_view text, const std::string& place);
[[nodiscard]] Result<PublicKey> parse_key_text(std::string_view z85, const std::string& place);
[[nodiscard]] std::string public_key_file(const PublicKey& key);
[[nodiscard]] std::string secret_key_file(const KeyPair& pair);

}  // namespace ecopipe
