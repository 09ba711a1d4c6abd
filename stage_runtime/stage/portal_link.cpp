#include "stage_runtime/stage/portal_link.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/log.h"

namespace ecopipe {
namespace {
constexpr auto kHelloEvery = std::chrono::milliseconds(200);
}

void ComputeActivity::begin(std::uint64_t at_step, std::uint32_t at_micro_batch, Instant now) {
    step = at_step;
    micro_batch = at_micro_batch;
    busy_since_ns = now.time_since_epoch().count();
}

void ComputeActivity::end(Instant now) {
    const auto took =
        static_cast<std::uint64_t>(now.time_since_epoch().count() - busy_since_ns.exchange(0));
    if (took > longest_ns) longest_ns = took;
    ++progress;
}

PortalLink::PortalLink(NetLoop& loop, const ComputeActivity& activity, Callbacks callbacks)
    : loop_(loop), activity_(activity), callbacks_(std::move(callbacks)) {}

PortalLink::~PortalLink() {
    hang_up();
    loop_.call([this] { lifeline_.reset(); });
}

Result<void> PortalLink::dial(const Endpoint& portal, const std::string& peer, const Hello& hello) {
    return loop_.call([&]() -> Result<void> {
        portal_ = portal;
        hello_ = hello;
        welcomed_ = lost_ = false;
        run_ = 0;
        auto socket = MessageSocket::dial(
            loop_, portal, [this](const Incoming& message) { on_message(message); },
            [this](std::string_view, const Error& error) {
                log_warn("portal {}: {}", portal_.text(), error.message);
                if (error.code == ExitCode::kMismatch)
                    lose({ExitCode::kMismatch,
                          fmt::format("portal {} {}", portal_.text(), error.message)});
            },
            peer);
        if (!socket) return tl::unexpected<Error>(socket.error());
        socket_ = std::move(*socket);
        say_hello(++attempt_);
        return {};
    });
}

void PortalLink::hang_up() {
    loop_.call([this] {
        ++attempt_;
        socket_.reset();
    });
}

void PortalLink::say_hello(std::uint64_t attempt_of) {
    if (attempt_of != attempt_ || welcomed_ || lost_) return;
    static_cast<void>(socket_->send("", {}, hello_));
    loop_.at(monotonic_now() + kHelloEvery, lifeline_,
             [this, attempt_of] { say_hello(attempt_of); });
}

void PortalLink::check_silence(std::uint64_t attempt_of, Instant due) {
    if (attempt_of != attempt_ || lost_) return;
    const Instant now = monotonic_now();
    // What the portal said meanwhile is still to be read.
    if (time_not_run(now, due) > Duration::zero()) last_heard_ = now;
    if (now - last_heard_ > silence_max_) {
        lose({ExitCode::kUnreachable, fmt::format("portal {} has said nothing for {:.1f} s",
                                                  portal_.text(), to_ms(silence_max_) / 1000)});
        return;
    }
    const Instant next = last_heard_ + silence_max_ + std::chrono::milliseconds(10);
    loop_.at(next, lifeline_, [this, attempt_of, next] { check_silence(attempt_of, next); });
}

void PortalLink::lose(Error error) {
    if (lost_) return;
    lost_ = true;
    callbacks_.on_lost(std::move(error));
}

void PortalLink::introduce(const Incoming& message) {
    const auto known = decode<Introduce>(message.body);
    if (!known) return;
    std::map<std::string, PublicKey> peers;
    for (const Introduction& peer : known->peers)
        if (const auto key = parse_key_text(peer.public_key, "portal")) peers[peer.device] = *key;
    loop_.introduce(std::move(peers));
}

void PortalLink::on_message(const Incoming& message) {
    last_heard_ = monotonic_now();
    const auto type = static_cast<MessageType>(message.header.type);
    if (type == MessageType::kPing) {
        if (const auto ping = decode<Ping>(message.body)) {
            const std::int64_t now_ns = last_heard_.time_since_epoch().count();
            const std::int64_t since_ns = activity_.busy_since_ns;
            const Pong pong{ping->sent_ns,
                            now_ns,
                            activity_.progress,
                            since_ns == 0 ? 0
                                          : static_cast<std::uint64_t>(
                                                std::max<std::int64_t>(now_ns - since_ns, 1)),
                            activity_.longest_ns,
                            activity_.step,
                            activity_.micro_batch};
            FrameHeader header;
            header.run = run_;
            static_cast<void>(socket_->send("", header, pong));
        }
        return;
    }
    if (type == MessageType::kIntroduce) {
        introduce(message);
        return;
    }
    if (type == MessageType::kWelcome) {
        if (welcomed_) return;
        const auto welcome = decode<Welcome>(message.body);
        if (!welcome) return;
        welcomed_ = true;
        run_ = message.header.run;
        silence_max_ = std::chrono::milliseconds(welcome->silence_max_ms);
        check_silence(attempt_, last_heard_);
    }
    callbacks_.on_message(message.header, {message.body.begin(), message.body.end()});
}

}  // namespace ecopipe
