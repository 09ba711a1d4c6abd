#include "transport/net/zap_handler.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <array>
#include <cstring>
#include <vector>

#include "transport/net/connection_guard.h"
#include "transport/net/stranger_log.h"
#include "transport/security/key_ring.h"

namespace ecopipe {
namespace {

constexpr std::size_t kRequestFrames = 7;  // version, id, domain, address, identity, mechanism, key

std::string property(std::string_view name, std::string_view value) {
    std::string out(1, static_cast<char>(name.size()));
    out += name;
    const std::uint32_t size = htonl(static_cast<std::uint32_t>(value.size()));
    out.append(reinterpret_cast<const char*>(&size), sizeof size);
    return out.append(value);
}

}  // namespace

ZapHandler::ZapHandler(NetLoop& loop) : loop_(loop), socket_(loop.context(), ZMQ_REP) {
    socket_.set(zmq::sockopt::linger, 0);
    socket_.bind("inproc://zeromq.zap.01");
    loop_.watch(socket_, [this] { answer_some(); });
}

ZapHandler::~ZapHandler() { loop_.unwatch(socket_); }

void ZapHandler::answer_some() {
    for (;;) {
        std::vector<std::string> request;
        bool more = true;
        while (more) {
            zmq::message_t frame;
            if (!socket_.recv(frame, zmq::recv_flags::dontwait)) return;
            more = frame.more();
            request.push_back(frame.to_string());
        }
        std::string_view status = "400";
        std::string user;
        std::string metadata;
        PublicKey key;
        if (request.size() == kRequestFrames && request[0] == "1.0" && request[5] == "CURVE" &&
            request[6].size() == kKeyBytes) {
            std::memcpy(key.bytes.data(), request[6].data(), kKeyBytes);
            if (const auto name = loop_.keys()->identify(key)) {
                status = "200";
                user = *name;
                metadata = property(kKeyProperty, key.fingerprint());
            } else {
                if (request[2] == kDataDomain) status = "300";
                loop_.strangers().tell(fmt::format("{} port: {} refused: its key {} is not allowed",
                                                   request[2], plain_address(request[3]),
                                                   key.fingerprint()));
            }
        }
        const std::array<std::string_view, 6> reply{
            "1.0",  request.size() > 1 ? std::string_view(request[1]) : std::string_view(),
            status, status == "200" ? "OK" : "no",
            user,   metadata};
        for (std::size_t i = 0; i < reply.size(); ++i)
            static_cast<void>(socket_.send(
                zmq::message_t(reply[i].data(), reply[i].size()),
                i + 1 < reply.size() ? zmq::send_flags::sndmore : zmq::send_flags::none));
    }
}

void use_keys(NetLoop& loop, std::shared_ptr<KeyRing> keys) {
    if (keys == nullptr) return;
    loop.set_keys(std::move(keys), [](NetLoop& on) -> std::shared_ptr<void> {
        return std::make_shared<ZapHandler>(on);
    });
}

}  // namespace ecopipe
