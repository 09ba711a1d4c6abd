#pragma once
// Bodies to bytes and back. cereal stays behind this file and bounded_archive.h.

#include <span>
#include <string>

#include "core/log.h"
#include "core/result.h"
#include "transport/wire/bounded_archive.h"
#include "transport/wire/frame.h"

namespace ecopipe {

template <class Message>
[[nodiscard]] std::string encode(const Message& message) {
    std::string body;
    WireOutput archive(body);
    archive(message);
    return body;
}

// The same into a buffer that is used again.
template <class Message>
void encode_into(const Message& message, std::string& body) {
    body.clear();
    WireOutput archive(body);
    archive(message);
}

// Reads the message in `body`, whole and valid, into one that is used again (its strings and lists
// keep their memory), or says why it is not one.
template <class Message>
[[nodiscard]] Result<void> decode_into(std::span<const std::byte> body, Message& message) {
    try {
        BoundedInput archive(body);
        archive(message);
        if (!archive.empty()) return fail(ExitCode::kRunFailed, "bytes after the message");
        if (auto expected = message.validate(); !expected.empty())
            return fail(ExitCode::kRunFailed, "expected " + expected);
        return {};
    } catch (const std::exception& error) {
        return fail(ExitCode::kRunFailed, one_line(error.what()));
    }
}

template <class Message>
[[nodiscard]] Result<Message> decode(std::span<const std::byte> body) {
    Message message;
    ECOPIPE_RETURN_IF_ERROR(decode_into(body, message));
    return message;
}

}  // namespace ecopipe
