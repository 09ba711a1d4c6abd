// Every limit of the wire: what is at it passes, one more does not.
#include "transport/limits.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "transport/net/connection_table.h"
#include "transport/security/key_file.h"
#include "transport/wire/codec.h"
#include "transport/wire/federation_messages.h"
#include "transport/wire/frame.h"
#include "transport/wire/messages.h"

namespace ecopipe {
namespace {

template <class Message>
bool passes(const Message& message) {
    const std::string body = encode(message);
    return decode<Message>(std::as_bytes(std::span(body))).has_value();
}

Configure sample_configure() {
    Configure configure;
    configure.device = "pi";
    configure.model = "lenet5";
    configure.input_shape = {1, 28, 28};
    return configure;
}

struct Limit {
    const char* name;
    std::size_t most;
    std::function<bool(std::size_t)> passes;  // with so much of it
};

std::vector<Limit> limits() {
    const auto text = [](std::size_t n) { return std::string(n, 'a'); };
    return {
        {"kNameBytesMax", kNameBytesMax, [=](std::size_t n) { return passes(Attach{text(n), 1}); }},
        {"kReasonBytesMax", kReasonBytesMax,
         [=](std::size_t n) { return passes(Refuse{1, text(n)}); }},
        {"kReasonBytesMax of a verdict", kReasonBytesMax,
         [=](std::size_t n) { return passes(Verdict{1, false, text(n)}); }},
        {"kReasonBytesMax of the federation's end", kReasonBytesMax,
         [=](std::size_t n) { return passes(FederationEnd{1, text(n)}); }},
        {"kPatternsMax", kPatternsMax,
         [=](std::size_t n) {
             Configure configure = sample_configure();
             configure.freeze.assign(n, "layer");
             return passes(configure);
         }},
        {"kStepMicroBatchesMax", kStepMicroBatchesMax,
         [](std::size_t n) {
             Begin begin;
             begin.micro_batch_samples.assign(n, 1);
             return begin.validate().empty();
         }},
        {"kElementsMax", kElementsMax,
         [](std::size_t n) {
             Begin begin;
             begin.micro_batch_samples.assign(n, 1);
             return passes(begin);
         }},
        {"kTextBytesMax", kTextBytesMax,
         [=](std::size_t n) {
             const std::string bytes = text(n);
             std::string body(sizeof(std::uint32_t), '\0');
             const auto count = static_cast<std::uint32_t>(n);
             std::memcpy(body.data(), &count, sizeof count);
             body += bytes;
             BoundedInput input(std::as_bytes(std::span(body)));
             std::string back;
             try {
                 input(back);
             } catch (const DecodeError&) {
                 return false;
             }
             return back == bytes;
         }},
        {"kOutputsMax", kOutputsMax,
         [](std::size_t n) {
             TensorChunk chunk;
             chunk.shape = {1};
             chunk.outputs = static_cast<std::uint16_t>(n);
             return passes(chunk);
         }},
        {"kClassNameBytesMax", kClassNameBytesMax,
         [=](std::size_t n) { return passes(ClassList{{text(n)}}); }},
        {"kClassesMax", kClassesMax,
         [](std::size_t n) {
             // Short names, or the list would be too long before.
             ClassList list;
             for (std::size_t i = 0; i < n; ++i) {
                 std::string name;
                 for (std::size_t rest = i + 1; rest > 0; rest /= 94)
                     name += static_cast<char>('!' + rest % 94);
                 list.classes.push_back(name);
             }
             return passes(list);
         }},
        {"kClassListBytesMax", kClassListBytesMax,
         [=](std::size_t n) {
             ClassList list;
             for (std::size_t i = 0; n > 0; ++i) {
                 const std::size_t part = std::min<std::size_t>(n, 200);
                 std::string name = std::to_string(i);
                 name.resize(part, 'a');
                 list.classes.push_back(name);
                 n -= part;
             }
             return passes(list);
         }},
        {"kStateNameBytesMax", kStateNameBytesMax,
         [=](std::size_t n) {
             TensorChunk chunk;
             chunk.kind = TensorKind::kState;
             chunk.shape = {1};
             chunk.name = text(n);
             return passes(chunk);
         }},
        {"a tensor's rank", static_cast<std::size_t>(kTensorRankMax),
         [](std::size_t n) {
             TensorChunk chunk;
             chunk.shape.assign(n, 1);
             return passes(chunk);
         }},
        {"kWireLayersMax", kWireLayersMax - 1,
         [=](std::size_t n) {
             Configure configure = sample_configure();
             configure.restore.emplace_back();
             configure.restore.back().peer = "pi";
             configure.restore.back().last_layer = static_cast<std::uint32_t>(n);
             return passes(configure);
         }},
        {"kBodyBytesMax", kBodyBytesMax,
         [](std::size_t n) {
             const std::string body(n, 'b');
             const auto header = seal({}, body, 0);
             const std::vector<std::span<const std::byte>> frames{header,
                                                                  std::as_bytes(std::span(body))};
             return open_frames(frames).has_value();
         }},
        {"kKeyFileBytesMax", kKeyFileBytesMax,
         [=](std::size_t n) {
             const auto parsed = parse_public_key(text(n), "a.public");
             return parsed ||
                    parsed.error().message.find("a key file of at most") == std::string::npos;
         }},
        {"kStrangerLogBurst", static_cast<std::size_t>(kStrangerLogBurst),
         [](std::size_t n) {
             TokenBucket rate{kStrangerLogBurst, kStrangerLogsPerSecond};
             const Instant now = monotonic_now();
             bool last = false;
             for (std::size_t i = 0; i < n; ++i) last = rate.take(now);
             return last;
         }},
    };
}

TEST(Limits, WhatIsAtOnePassesAndOneMoreDoesNot) {
    for (const Limit& limit : limits()) {
        EXPECT_TRUE(limit.passes(limit.most)) << limit.name;
        EXPECT_FALSE(limit.passes(limit.most + 1)) << limit.name;
    }
}

}  // namespace
}  // namespace ecopipe
