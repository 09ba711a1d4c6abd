#include "core/sha256.h"

#include <fmt/format.h>
#include <sodium.h>

#include <array>

#include "core/check.h"

namespace ecopipe {

struct Sha256::State {
    crypto_hash_sha256_state state;
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
    ECOPIPE_CHECK(sodium_init() >= 0);
    crypto_hash_sha256_init(&state_->state);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(std::span<const std::byte> bytes) {
    crypto_hash_sha256_update(&state_->state, reinterpret_cast<const unsigned char*>(bytes.data()),
                              bytes.size());
}

std::string Sha256::hex() {
    std::array<unsigned char, crypto_hash_sha256_BYTES> digest{};
    crypto_hash_sha256_final(&state_->state, digest.data());
    std::string hex;
    for (const unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
    return hex;
}

}  // namespace ecopipe
