#include "core/random.h"

#include <bit>
#include <cmath>
#include <numbers>

namespace ecopipe {
namespace {

std::uint64_t splitmix(std::uint64_t& state) {
    state += 0x9E3779B97F4A7C15ULL;
    std::uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

std::uint64_t absorb(std::uint64_t hash, std::uint64_t word) {
    std::uint64_t state = hash ^ std::rotl(word * 0x9E3779B97F4A7C15ULL, 31);
    return splitmix(state);
}

}  // namespace

std::uint64_t keyed_seed(std::uint64_t seed, std::initializer_list<std::uint64_t> key) {
    std::uint64_t hash = absorb(0, seed);
    for (const std::uint64_t word : key) hash = absorb(hash, word);
    return hash;
}

std::uint64_t keyed_seed(std::uint64_t seed, std::string_view key) {
    std::uint64_t hash = absorb(1, seed);
    for (const char c : key) hash = absorb(hash, static_cast<unsigned char>(c));
    return absorb(hash, key.size());
}

Rng::Rng(std::uint64_t seed) : state_{} {
    for (auto& word : state_) word = splitmix(seed);
}

std::uint64_t Rng::next() {
    const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const std::uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return result;
}

double Rng::uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

double Rng::uniform(double low, double high) { return low + (high - low) * uniform(); }

std::uint64_t Rng::below(std::uint64_t bound) {
    const std::uint64_t threshold = (0 - bound) % bound;
    for (;;) {
        if (const std::uint64_t draw = next(); draw >= threshold) return draw % bound;
    }
}

double Rng::normal() {
    const double radius = std::sqrt(-2.0 * std::log1p(-uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

}  // namespace ecopipe
