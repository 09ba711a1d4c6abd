#include "tests/support/hostile.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <zmq.hpp>

#include "tests/support/process.h"
#include "transport/limits.h"
#include "transport/wire/messages.h"

namespace ecopipe::test {
namespace {

constexpr std::uint64_t kMessagesPerConnection = 400;
constexpr std::size_t kOversizeBytes = 2U << 20;
constexpr int kAnswerMs = 500;

class Handshakes : public zmq::monitor_t {
  public:
    explicit Handshakes(zmq::socket_t& socket) {
        init(socket, "inproc://handshakes", ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    }
    [[nodiscard]] std::uint64_t succeeded() {
        while (check_event(0)) {
        }
        return succeeded_;
    }
    void on_event_handshake_succeeded(const zmq_event_t&, const char*) override { ++succeeded_; }

  private:
    std::uint64_t succeeded_ = 0;
};

int tcp(int port) {
    const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    timeval patience{1, 0};
    ::setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    ::setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (::connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0)
        return descriptor;
    ::close(descriptor);
    return -1;
}

bool put(int descriptor, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::send(descriptor, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (n <= 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
}

// ZMTP 3.1's greeting, and a DEALER's READY of the NULL mechanism.
std::string greeting(const std::string& mechanism) {
    std::string out("\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01", 12);
    out += mechanism;
    out.resize(64, '\0');
    return out;
}
std::string ready() {
    const std::string body(
        "\x05READY\x0bSocket-Type\0\0\0\x06"
        "DEALER",
        28);
    return std::string("\x04") + static_cast<char>(body.size()) + body;
}

}  // namespace

Hostile::Hostile(int port, std::uint64_t seed, const HostileKeys* keys)
    : port_(port), state_(seed * 0x9E3779B97F4A7C15ULL + 1), keys_(keys) {
    for (const auto& entry :
         std::filesystem::directory_iterator(ECOPIPE_SOURCE_DIR "/fuzz/corpus/frames")) {
        const std::string bytes = read(entry.path().string());
        if (bytes.size() < 1 + sizeof(FrameHeader)) continue;
        Seed known;
        std::memcpy(&known.header, bytes.data() + 1, sizeof known.header);
        if (known.header.magic != kFrameMagic) continue;
        known.body = bytes.substr(1 + sizeof(FrameHeader), known.header.body_bytes);
        known.payload = bytes.substr(1 + sizeof(FrameHeader) + known.body.size());
        seeds_.push_back(std::move(known));
    }
}

std::uint64_t Hostile::below(std::uint64_t limit) {  // xorshift64*
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return (state_ * 0x2545F4914F6CDD1DULL >> 16) % limit;
}

Hostile::Seed Hostile::mutated() {
    Seed out = seeds_[below(seeds_.size())];
    out.header.run = run_;
    out.header.step = below(2) == 0 ? below(64) : below(UINT64_MAX);
    out.header.generation = static_cast<std::uint32_t>(below(2) == 0 ? 1 : below(5));
    out.header.micro_batch = static_cast<std::uint32_t>(below(8));
    if (below(8) == 0) out.header.type = static_cast<std::uint16_t>(below(64));
    for (std::uint64_t n = below(4); n > 0 && !out.body.empty(); --n) {
        const std::size_t at = below(out.body.size());
        switch (below(5)) {
            case 0:
                out.body[at] = static_cast<char>(below(256));
                break;
            case 1:
                out.body[at] ^= static_cast<char>(1U << below(8));
                break;
            case 2:
                out.body.resize(at);
                break;
            case 3:
                out.body.insert(at, std::string(1 + below(64), static_cast<char>(below(256))));
                break;
            default:  // a count that claims much
                out.body.replace(at, std::min<std::size_t>(4, out.body.size() - at),
                                 "\xff\xff\xff\x7f");
        }
    }
    if (out.header.type == static_cast<std::uint16_t>(MessageType::kTensorChunk) && below(2) == 0)
        out.payload.assign(below(16) == 0 ? kPayloadBytesMax : below(4096), 'x');
    return out;
}

void Hostile::connection(std::uint64_t messages, const std::optional<Greeting>& first) {
    zmq::context_t context(1);
    zmq::socket_t socket(context, zmq::socket_type::dealer);
    socket.set(zmq::sockopt::linger, 200);
    socket.set(zmq::sockopt::sndtimeo, 200);
    socket.set(zmq::sockopt::rcvtimeo, kAnswerMs);
    if (keys_ != nullptr) {
        const auto bytes = [](const auto& key) {
            return zmq::const_buffer(key.data(), key.size());
        };
        socket.set(zmq::sockopt::curve_publickey, bytes(keys_->own->public_key.bytes));
        socket.set(zmq::sockopt::curve_secretkey, bytes(keys_->own->secret_key.bytes()));
        socket.set(zmq::sockopt::curve_serverkey, bytes(keys_->server.bytes));
    }
    Handshakes handshakes(socket);
    const std::shared_ptr<void> count(nullptr, [&](void*) { admitted_ += handshakes.succeeded(); });
    socket.connect(fmt::format("tcp://127.0.0.{}:0;127.0.0.1:{}", 2 + below(250), port_));
    const auto send = [&](const std::vector<std::string_view>& frames) {
        for (std::size_t i = 0; i < frames.size(); ++i)
            if (!socket.send(
                    zmq::message_t(frames[i].data(), frames[i].size()),
                    i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none))
                return false;
        ++sent_;
        return true;
    };
    const auto text = [](const auto& bytes) {
        return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
    if (first) {
        FrameHeader header = first->header;
        header.run = first->wait ? 0 : run_;
        const auto sealed = seal(header, first->body, 0);
        if (!send({text(sealed), first->body})) return;
        if (first->wait) {
            zmq::message_t frame;
            if (socket.recv(frame)) {
                FrameHeader answer;
                if (frame.size() == sizeof answer) {
                    std::memcpy(&answer, frame.data(), sizeof answer);
                    if (static_cast<MessageType>(answer.type) == MessageType::kWelcome)
                        run_ = answer.run;
                }
            }
        }
    }
    Seed last;
    std::array<std::byte, sizeof(FrameHeader)> sealed{};
    for (std::uint64_t i = 0; i < messages; ++i) {
        if (i == 0 || below(8) != 0) {  // else the one before, once more
            last = mutated();
            sealed = seal(last.header, last.body, last.payload.size());
        }
        std::vector<std::string_view> frames{text(sealed), last.body};
        if (!last.payload.empty()) frames.emplace_back(last.payload);
        if (!send(frames)) return;
    }
    // What is no message costs the connection.
    const std::string big(kOversizeBytes, 'x');
    std::array<std::byte, sizeof(FrameHeader)> broken = sealed;
    broken[below(broken.size())] ^= std::byte{0x10};
    switch (below(6)) {
        case 0:
            static_cast<void>(send({text(broken), last.body}));
            break;
        case 1:
            static_cast<void>(send({last.body, text(sealed)}));
            break;
        case 2:
            static_cast<void>(send({text(sealed)}));
            break;
        case 3:
            static_cast<void>(send({text(sealed), last.body, "x", "y", "z", "", ""}));
            break;
        case 4:
            static_cast<void>(send({text(sealed), big}));
            break;
        default:
            static_cast<void>(send({"", ""}));
    }
}

void Hostile::attack(std::uint64_t messages, const std::optional<Greeting>& greeting,
                     std::uint64_t run) {
    run_ = run;
    const std::uint64_t wanted = sent_ + messages;
    while (sent_ < wanted) {
        const std::uint64_t before = sent_;
        connection(std::min(kMessagesPerConnection, wanted - sent_), greeting);
        if (sent_ == before) ++sent_;  // refused at once: the attempt counts
    }
}

void Hostile::attack_raw(int connections) {
    std::vector<int> silent;
    const std::string block(64U << 10, '\x5a');
    for (int i = 0; i < connections; ++i) {
        const int descriptor = tcp(port_);
        if (descriptor < 0) continue;
        switch (i % 4) {
            case 0:  // garbage
                static_cast<void>(put(descriptor, block));
                break;
            case 1:  // half a handshake of keys, with a huge command
                static_cast<void>(
                    put(descriptor,
                        greeting("CURVE") + std::string("\x06\0\0\0\0\0\x0f\xff\xff", 9) + block));
                break;
            case 2: {  // a message without end: frames that all announce another
                std::string opening = greeting("NULL") + ready();
                if (!put(descriptor, opening)) break;
                const std::string frame = std::string("\x03\0\0\0\0\0\x01\0\0", 9) + block;
                for (int n = 0; n < 2000 && put(descriptor, frame); ++n) {
                }
                break;
            }
            default:  // nothing at all
                silent.push_back(descriptor);
                continue;
        }
        ::close(descriptor);
    }
    for (const int descriptor : silent) ::close(descriptor);
}

double resident_mib(int process) {
    std::ifstream status(fmt::format("/proc/{}/status", process));
    std::string word;
    while (status >> word) {
        if (word != "VmRSS:") continue;
        double kib = 0;
        status >> kib;
        return kib / 1024;
    }
    return 0;
}

}  // namespace ecopipe::test
