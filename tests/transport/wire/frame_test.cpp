#include "transport/wire/frame.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace ecopipe {
namespace {

using Bytes = std::vector<std::byte>;

Bytes to_bytes(std::string_view text) {
    const auto view = std::as_bytes(std::span(text));
    return {view.begin(), view.end()};
}

struct Sealed {
    Bytes header;
    Bytes body = to_bytes("body");
    Bytes payload;

    explicit Sealed(FrameHeader h = {}, std::size_t payload_bytes = 0) : payload(payload_bytes) {
        const auto sealed = seal(h, "body", payload_bytes);
        header.assign(sealed.begin(), sealed.end());
    }
    [[nodiscard]] Result<FrameHeader> open() const {
        std::vector<std::span<const std::byte>> frames{header, body};
        if (!payload.empty()) frames.emplace_back(payload);
        return open_frames(frames);
    }
    [[nodiscard]] std::string problem() const {
        const auto opened = open();
        return opened ? "" : opened.error().message;
    }
};

TEST(Frame, KeepsEveryField) {
    FrameHeader header;
    header.type = 21;
    header.run = 7;
    header.step = 1ULL << 40;
    header.generation = 3;
    header.micro_batch = 5;
    header.slice = 2;
    const auto opened = Sealed(header, 16).open();
    ASSERT_TRUE(opened);
    EXPECT_EQ(opened->run, 7U);
    EXPECT_EQ(opened->step, 1ULL << 40);
    EXPECT_EQ(opened->generation, 3U);
    EXPECT_EQ(opened->micro_batch, 5U);
    EXPECT_EQ(opened->slice, 2);
    EXPECT_EQ(opened->payload_bytes, 16U);
}

TEST(Frame, EveryFlippedBitOfTheHeaderIsNoticed) {
    for (std::size_t bit = 0; bit < sizeof(FrameHeader) * 8; ++bit) {
        Sealed message;
        message.header[bit / 8] ^= std::byte(1U << (bit % 8));
        EXPECT_NE(message.problem(), "") << "bit " << bit;
    }
}

TEST(Frame, RefusesOtherSizesCountsAndBodies) {
    Sealed shorter;
    shorter.header.pop_back();
    EXPECT_NE(shorter.problem(), "");
    Sealed longer_body;
    longer_body.body.push_back(std::byte(0));
    EXPECT_EQ(longer_body.problem(), "frame sizes differ from the header's");
    Sealed other_body;
    other_body.body[0] ^= std::byte(1);
    EXPECT_EQ(other_body.problem(), "body checksum does not match");
    const Sealed message;
    const std::vector<std::span<const std::byte>> one{message.header};
    EXPECT_FALSE(open_frames(one));
    const std::vector<std::span<const std::byte>> four(4, message.header);
    EXPECT_FALSE(open_frames(four));
}

TEST(Frame, AnotherProtocolIsAMismatch) {
    FrameHeader header;
    header.protocol = kProtocol + 1;
    const auto opened = Sealed(header).open();
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, ExitCode::kMismatch);
}

TEST(Frame, PayloadAtTheLimitPassesAndOnePastItDoesNot) {
    EXPECT_EQ(Sealed({}, kPayloadBytesMax).problem(), "");
    EXPECT_EQ(Sealed({}, kPayloadBytesMax + 1).problem(), "a frame is larger than its limit");
}

}  // namespace
}  // namespace ecopipe
