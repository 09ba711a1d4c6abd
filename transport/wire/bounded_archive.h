#pragma once
// cereal archives for message bodies. cereal's own input archives trust counts (nine bytes made one
// allocate a gigabyte); BoundedInput reads the same `serialize` members but believes nothing: a
// count must fit the bytes left and the element limit, a bool is 0 or 1, nothing may be left over.

#include <cereal/cereal.hpp>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "transport/limits.h"

namespace ecopipe {

// Thrown inside decode() only and caught there.
struct DecodeError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class WireOutput : public cereal::OutputArchive<WireOutput, cereal::AllowEmptyClassElision> {
  public:
    explicit WireOutput(std::string& out) : OutputArchive(this), out_(out) {}
    void bytes(const void* data, std::size_t size) {
        out_.append(static_cast<const char*>(data), size);
    }

  private:
    std::string& out_;
};

class BoundedInput : public cereal::InputArchive<BoundedInput, cereal::AllowEmptyClassElision> {
  public:
    explicit BoundedInput(std::span<const std::byte> in) : InputArchive(this), in_(in) {}
    void bytes(void* data, std::size_t size) {
        if (size > in_.size()) throw DecodeError("truncated");
        std::memcpy(data, in_.data(), size);
        in_ = in_.subspan(size);
    }
    // A count of elements that take at least `element_bytes` each.
    [[nodiscard]] std::size_t count(std::size_t element_bytes, std::size_t limit) {
        std::uint32_t n = 0;
        bytes(&n, sizeof n);
        if (n > limit || n > in_.size() / element_bytes)
            throw DecodeError("count exceeds its limit");
        return n;
    }
    [[nodiscard]] bool empty() const { return in_.empty(); }

  private:
    std::span<const std::byte> in_;
};

// Enums go through cereal's own rule, as their underlying number; validate() checks their values.
template <class T>
concept WireNumber = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;

template <WireNumber T>
void CEREAL_SAVE_FUNCTION_NAME(WireOutput& archive, const T& value) {
    archive.bytes(&value, sizeof value);
}
template <WireNumber T>
void CEREAL_LOAD_FUNCTION_NAME(BoundedInput& archive, T& value) {
    archive.bytes(&value, sizeof value);
}
inline void CEREAL_SAVE_FUNCTION_NAME(WireOutput& archive, const bool& value) {
    const std::uint8_t byte = value ? 1 : 0;
    archive.bytes(&byte, 1);
}
inline void CEREAL_LOAD_FUNCTION_NAME(BoundedInput& archive, bool& value) {
    std::uint8_t byte = 0;
    archive.bytes(&byte, 1);
    if (byte > 1) throw DecodeError("a bool is neither 0 nor 1");
    value = byte == 1;
}
inline void CEREAL_SAVE_FUNCTION_NAME(WireOutput& archive, const std::string& value) {
    const auto n = static_cast<std::uint32_t>(value.size());
    archive.bytes(&n, sizeof n);
    archive.bytes(value.data(), value.size());
}
inline void CEREAL_LOAD_FUNCTION_NAME(BoundedInput& archive, std::string& value) {
    value.resize(archive.count(1, kTextBytesMax));
    archive.bytes(value.data(), value.size());
}
template <class T>
void CEREAL_SAVE_FUNCTION_NAME(WireOutput& archive, const std::vector<T>& values) {
    const auto n = static_cast<std::uint32_t>(values.size());
    archive.bytes(&n, sizeof n);
    for (const T& value : values) archive(value);
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(BoundedInput& archive, std::vector<T>& values) {
    // A struct's wire size is unknown here but never below one byte; growth follows what was really
    // read.
    const std::size_t n = archive.count(WireNumber<T> ? sizeof(T) : 1, kElementsMax);
    values.clear();
    for (std::size_t i = 0; i < n; ++i) {
        values.emplace_back();
        archive(values.back());
    }
}

}  // namespace ecopipe

CEREAL_REGISTER_ARCHIVE(ecopipe::WireOutput)
CEREAL_REGISTER_ARCHIVE(ecopipe::BoundedInput)
CEREAL_SETUP_ARCHIVE_TRAITS(ecopipe::BoundedInput, ecopipe::WireOutput)
