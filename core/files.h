#pragma once
// Whole files: bounded reading, and writing that a crash cannot leave half done.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/result.h"

namespace ecopipe {

// The bytes of `path`; refuses what is missing, unreadable, no regular file, or above `bytes_max`.
[[nodiscard]] Result<std::string> read_file(const std::string& path, std::size_t bytes_max);

// Writes `path`.tmp in the same directory, fsyncs, renames over `path` and fsyncs the directory:
// after a crash the old or the new file is there, whole. On error the temporary file is removed and
// `path` is untouched.
[[nodiscard]] Result<void> write_file_atomically(const std::string& path, std::string_view bytes);
// The same in parts, so that large files need no second copy in memory.
[[nodiscard]] Result<void> write_file_atomically(const std::string& path,
                                                 std::span<const std::string_view> parts);

// Writes `path`.tmp and renames it over `path`, without waiting for the disk: a reader sees the old
// or the new file, whole; after a crash of the machine it may be damaged. For what is written
// often.
[[nodiscard]] Result<void> replace_file(const std::string& path, std::string_view bytes);

// Appends whole lines; a line is on disk or absent as far as the kernel orders one write. What a
// full disk has no room for waits in memory and goes before the next line.
class LineAppender {
  public:
    [[nodiscard]] static Result<LineAppender> open(const std::string& path);
    LineAppender(LineAppender&& other) noexcept;
    LineAppender& operator=(LineAppender&& other) noexcept;
    ~LineAppender();
    // Adds the newline. Errors: kRunFailed when it cannot be written now; the line is not lost.
    [[nodiscard]] Result<void> append(std::string_view line);
    [[nodiscard]] Result<void> flush();  // once more what waits
    [[nodiscard]] std::size_t waiting_bytes() const { return waiting_.size(); }

  private:
    LineAppender(int descriptor, std::string path);
    int descriptor_;
    std::string path_;
    std::string waiting_;  // from the middle of a line on, if it was cut
};

[[nodiscard]] Result<void> make_directories(const std::string& path);
// Such a directory, or a file of no bytes where there is none, that only its owner may read. Where
// the file system knows no owners the log says so.
[[nodiscard]] Result<void> make_private_directory(const std::string& path);
[[nodiscard]] Result<void> make_private_file(const std::string& path);
// Lower-case hexadecimal SHA-256.
[[nodiscard]] std::string sha256_hex(std::string_view bytes);

}  // namespace ecopipe
