#pragma once
// Randomness is keyed, never sequential across the program: a draw depends on what it is for, not
// on who drew before. The generator and distributions are our own because those of the standard
// library differ between implementations.

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

namespace ecopipe {

// A seed for one purpose: mixes `seed` with the words of a key. Equal inputs give equal seeds on
// every machine.
[[nodiscard]] std::uint64_t keyed_seed(std::uint64_t seed,
                                       std::initializer_list<std::uint64_t> key);
[[nodiscard]] std::uint64_t keyed_seed(std::uint64_t seed, std::string_view key);

// xoshiro256** 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2018),
// seeded by splitmix64.
class Rng {
  public:
    explicit Rng(std::uint64_t seed);
    [[nodiscard]] std::uint64_t next();
    [[nodiscard]] double uniform();                          // [0, 1), 53 bits
    [[nodiscard]] double uniform(double low, double high);   // [low, high)
    [[nodiscard]] std::uint64_t below(std::uint64_t bound);  // [0, bound), unbiased; bound > 0
    [[nodiscard]] double normal();                           // mean 0, variance 1 (Box-Muller)

    // Fisher-Yates.
    template <class T>
    void shuffle(std::vector<T>& values) {
        for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
    }

  private:
    std::array<std::uint64_t, 4> state_;
};

}  // namespace ecopipe
