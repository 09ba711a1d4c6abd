#include "fl_server/workers/worker_frames.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace ecopipe {
namespace {

constexpr std::uint64_t kHeaderMax = 64U << 20;
constexpr std::uint64_t kFrameBytesMax = 16ULL << 30;

struct Prefix {
    std::uint32_t kind = 0;
    std::uint32_t reserved = 0;
    std::uint64_t header = 0;
    std::uint64_t bytes = 0;
};

// Of a send or recv that moved nothing.
auto lost(int error) {
    if (error == EAGAIN) return fail(ExitCode::kRunFailed, "a worker process does not answer");
    return fail(ExitCode::kRunFailed,
                fmt::format("a worker process is gone: {}", std::strerror(error)));
}

Result<void> send_all(int descriptor, const char* data, std::size_t size) {
    while (size > 0) {
        const ssize_t sent = ::send(descriptor, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return lost(errno);
        data += sent;
        size -= static_cast<std::size_t>(sent);
    }
    return {};
}

Result<void> receive_all(int descriptor, char* data, std::size_t size) {
    while (size > 0) {
        const ssize_t got = ::recv(descriptor, data, size, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return lost(got == 0 ? EPIPE : errno);
        data += got;
        size -= static_cast<std::size_t>(got);
    }
    return {};
}

}  // namespace

Result<void> send_worker_message(int descriptor, WorkerFrame kind, const Json& header,
                                 std::string_view bytes) {
    const std::string text = header.dump();
    const Prefix prefix{static_cast<std::uint32_t>(kind), 0, text.size(), bytes.size()};
    std::array<char, sizeof prefix> raw{};
    std::memcpy(raw.data(), &prefix, sizeof prefix);
    ECOPIPE_RETURN_IF_ERROR(send_all(descriptor, raw.data(), raw.size()));
    ECOPIPE_RETURN_IF_ERROR(send_all(descriptor, text.data(), text.size()));
    return send_all(descriptor, bytes.data(), bytes.size());
}

Result<WorkerMessage> receive_worker_message(int descriptor) {
    std::array<char, sizeof(Prefix)> raw{};
    ECOPIPE_RETURN_IF_ERROR(receive_all(descriptor, raw.data(), raw.size()));
    Prefix prefix;
    std::memcpy(&prefix, raw.data(), sizeof prefix);
    if (prefix.header > kHeaderMax || prefix.bytes > kFrameBytesMax)
        return fail(ExitCode::kRunFailed, "a worker process sent nonsense");
    WorkerMessage message;
    message.kind = static_cast<WorkerFrame>(prefix.kind);
    std::string text(prefix.header, '\0');
    ECOPIPE_RETURN_IF_ERROR(receive_all(descriptor, text.data(), text.size()));
    message.bytes.resize(prefix.bytes);
    ECOPIPE_RETURN_IF_ERROR(receive_all(descriptor, message.bytes.data(), message.bytes.size()));
    ECOPIPE_ASSIGN_OR_RETURN(message.header, parse_json(text, "a worker's message"));
    return message;
}

}  // namespace ecopipe
