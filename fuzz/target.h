#pragma once
// What the fuzz targets share. A target decodes its input and, where the format has a writer,
// checks that what was accepted is written and read back the same. Anything but a Result is a bug.

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>

#include "core/check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace ecopipe::fuzz {

inline std::string_view text(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

inline std::span<const std::byte> bytes(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const std::byte*>(data), size};
}

// A file in memory, for readers that take a path.
class MemoryFile {
  public:
    explicit MemoryFile(std::string_view content) : descriptor_(::memfd_create("fuzz", 0)) {
        ECOPIPE_CHECK(descriptor_ >= 0 && ::write(descriptor_, content.data(), content.size()) ==
                                              static_cast<ssize_t>(content.size()));
        path_ = "/proc/self/fd/" + std::to_string(descriptor_);
    }
    ~MemoryFile() { ::close(descriptor_); }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    int descriptor_;
    std::string path_;
};

// A directory in memory, for readers of fixed names in one.
class MemoryDirectory {
  public:
    MemoryDirectory() {
        std::string name = "/dev/shm/ecopipe-fuzz-XXXXXX";
        ECOPIPE_CHECK(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~MemoryDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    MemoryDirectory(const MemoryDirectory&) = delete;
    MemoryDirectory& operator=(const MemoryDirectory&) = delete;
    void put(const std::string& name, std::string_view content) const {
        std::ofstream(path_ + "/" + name, std::ios::binary)
            .write(content.data(), static_cast<std::streamsize>(content.size()));
    }
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
};

}  // namespace ecopipe::fuzz
