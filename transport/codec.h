#pragma once
// Bodies to bytes and back. cereal stays behind this file and bounded_archive.h.

#include <span>
#include <string>

#include "core/result.h"
#include "transport/bounded_archive.h"
#include "transport/frame.h"

namespace ecopipe {

template <class Message>
[[nodiscard]] std::string encode(const Message& message) {
    std::string body;
    WireOutput archive(body);
    archive(message);
    return body;
}

// The message in `body`, whole and valid, or the reason it is not.
template <class Message>
[[nodiscard]] Result<Message> decode(std::span<const std::byte> body) {
    try {
        Message message;
        BoundedInput archive(body);
        archive(message);
        if (!archive.empty()) return fail(ExitCode::kRunFailed, "bytes after the message");
        if (auto expected = message.validate(); !expected.empty())
            return fail(ExitCode::kRunFailed, "expected " + expected);
        return message;
    } catch (const std::exception& error) {
        return fail(ExitCode::kRunFailed, error.what());
    }
}

}  // namespace ecopipe
