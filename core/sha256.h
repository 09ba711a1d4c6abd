#pragma once
// SHA-256 of bytes that come in parts. (Of a whole: sha256_hex in files.h.)

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace ecopipe {

class Sha256 {
  public:
    Sha256();
    ~Sha256();
    Sha256(Sha256&&) noexcept;
    Sha256& operator=(Sha256&&) noexcept;
    void update(std::span<const std::byte> bytes);
    [[nodiscard]] std::string hex();  // of all so far; once, at the end

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace ecopipe
