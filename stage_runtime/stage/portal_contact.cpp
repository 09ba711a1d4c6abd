#include "stage_runtime/stage/portal_contact.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ecopipe {
namespace {
constexpr auto kHelloEvery = std::chrono::milliseconds(200);
constexpr auto kLookAfter = std::chrono::milliseconds(10);  // past the deadline
}  // namespace

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

void PortalContact::begin(std::string portal, Hello hello, Instant now) {
    portal_ = std::move(portal);
    hello_ = std::move(hello);
    welcomed_ = lost_ = false;
    run_ = 0;
    due_ = now;
}

Instant PortalContact::tick(Instant now) {
    if (lost_) return due_ = Instant::max();
    if (!welcomed_) {
        send({}, hello_);
        return due_ = now + kHelloEvery;
    }
    // What the portal said meanwhile is still to be read.
    if (time_not_run(now, due_) > Duration::zero()) heard_ = now;
    if (now - heard_ > silence_max_) {
        lose({ExitCode::kUnreachable, fmt::format("portal {} has said nothing for {:.1f} s",
                                                  portal_, to_ms(silence_max_) / 1000)});
        return due_ = Instant::max();
    }
    return due_ = heard_ + silence_max_ + kLookAfter;
}

void PortalContact::lose(Error error) {
    if (!std::exchange(lost_, true)) side_.portal_lost(std::move(error));
}

void PortalContact::answer(const Ping& ping, Instant now) {
    const std::int64_t now_ns = now.time_since_epoch().count();
    const std::int64_t since_ns = activity_.busy_since_ns;
    const auto busy_ns = static_cast<std::uint64_t>(std::max<std::int64_t>(now_ns - since_ns, 1));
    send({}, Pong{ping.sent_ns, now_ns, activity_.progress, since_ns == 0 ? 0 : busy_ns,
                  activity_.longest_ns, activity_.step, activity_.micro_batch});
}

void PortalContact::heard(const FrameHeader& header, std::span<const std::byte> body, Instant now) {
    heard_ = now;
    switch (static_cast<MessageType>(header.type)) {
        case MessageType::kPing:
            if (const auto ping = decode<Ping>(body)) answer(*ping, now);
            return;
        case MessageType::kIntroduce:
            if (const auto known = decode<Introduce>(body)) side_.introduce(*known);
            return;
        case MessageType::kWelcome: {
            if (welcomed_) return;
            const auto welcome = decode<Welcome>(body);
            if (!welcome) return;
            welcomed_ = true;
            run_ = header.run;
            silence_max_ = std::chrono::milliseconds(welcome->silence_max_ms);
            break;
        }
        default:
            break;
    }
    side_.hand_over(header, {body.begin(), body.end()});
}

}  // namespace ecopipe
