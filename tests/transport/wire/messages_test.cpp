#include "transport/wire/messages.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/random.h"
#include "transport/wire/codec.h"
#include "transport/wire/federation_messages.h"

namespace ecopipe {
namespace {

template <class Message>
Result<Message> decode_text(const std::string& body) {
    return decode<Message>(std::as_bytes(std::span(body)));
}

Done sample_done() {
    Done done;
    done.loss = {1.5, 64, 64, 3, 0};
    done.squared_gradient_norms = {1, 2, 3};
    done.actions = {{'F', 0, 1, 10, 20}, {'B', 1, 2, 30, 40}};
    return done;
}

TEST(Messages, RoundTrip) {
    const auto done = decode_text<Done>(encode(sample_done()));
    ASSERT_TRUE(done);
    EXPECT_EQ(done->squared_gradient_norms, (std::vector<double>{1, 2, 3}));
    EXPECT_EQ(done->actions[1].kind, 'B');
    EXPECT_EQ(done->actions[1].end_ns, 40);

    TensorChunk chunk;
    chunk.shape = {8, 64, 16, 16};
    chunk.gradient_returns = true;
    const auto back = decode_text<TensorChunk>(encode(chunk));
    ASSERT_TRUE(back);
    EXPECT_EQ(back->shape, chunk.shape);
    EXPECT_TRUE(back->gradient_returns);
}

TEST(Messages, EveryTruncationAndEveryTailIsRefused) {
    const std::string body = encode(sample_done());
    for (std::size_t n = 0; n < body.size(); ++n)
        EXPECT_FALSE(decode_text<Done>(body.substr(0, n))) << n;
    EXPECT_FALSE(decode_text<Done>(body + '\0'));
}

TEST(Messages, ACountNeverAllocatesMoreThanTheBytesThere) {
    std::string body(4, '\xFF');  // 2^32-1 pairs claimed, none there
    EXPECT_FALSE(decode_text<ClusterWelcome>(std::string(8, '\1') + body));
    EXPECT_FALSE(decode_text<Begin>(std::string(1, '\0') + body));
}

TEST(Messages, MutatedBytesNeverCrash) {
    Rng rng(1);
    const std::string body = encode(sample_done());
    for (int i = 0; i < 20000; ++i) {
        std::string mutated = body;
        for (std::uint64_t k = 0; k <= rng.below(4); ++k)
            mutated[rng.below(mutated.size())] = static_cast<char>(rng.below(256));
        static_cast<void>(decode_text<Done>(mutated));
        static_cast<void>(decode_text<Configure>(mutated));
        static_cast<void>(decode_text<TensorChunk>(mutated));
        static_cast<void>(decode_text<Task>(mutated));
    }
}

TEST(Messages, ValidateRefusesWhatTheTypesAllow) {
    Hello hello;
    hello.device = "pi";
    hello.data_port = 5600;
    EXPECT_EQ(hello.validate(), "");
    hello.device = "";
    EXPECT_NE(hello.validate(), "");
    hello.device = "a b";
    EXPECT_NE(hello.validate(), "");

    Begin begin;
    EXPECT_NE(begin.validate(), "");
    begin.micro_batch_samples = {8, 0};
    EXPECT_NE(begin.validate(), "");
    begin.micro_batch_samples = {8, 7};
    EXPECT_EQ(begin.validate(), "");
    begin.loss_divisor = std::numeric_limits<double>::quiet_NaN();
    EXPECT_NE(begin.validate(), "");

    TensorChunk chunk;
    chunk.shape = {std::numeric_limits<std::int64_t>::max(), 4};
    EXPECT_NE(chunk.validate(), "");
    chunk.shape = {2, 3};
    EXPECT_EQ(chunk.validate(), "");
    chunk.offset = 25;
    EXPECT_NE(chunk.validate(), "");
    chunk.offset = 0;
    chunk.kind = static_cast<TensorKind>(99);
    EXPECT_NE(chunk.validate(), "");
    chunk.kind = TensorKind::kState;
    EXPECT_NE(chunk.validate(), "");  // state without a name

    UpdateSlice slice;
    slice.sha256 = std::string(64, 'a');
    EXPECT_EQ(slice.validate(), "");
    slice.slice = 1;
    EXPECT_NE(slice.validate(), "");
}

TEST(BoundedArchive, ABoolIsZeroOrOne) {
    std::string body = encode(Fetch{true});
    ASSERT_TRUE(decode_text<Fetch>(body));
    body[0] = 2;
    EXPECT_FALSE(decode_text<Fetch>(body));
}

// Found by fuzzing: as two-byte elements the shape passed, decoded to four bytes it ended the
// process.
TEST(Messages, AShapeThatOverflowsOnceDecodedIsRefused) {
    TensorChunk chunk;
    chunk.dtype = DType::kF16;
    chunk.codec = TensorCodec::kFp16;
    chunk.shape = {64, INT64_C(1) << 37};
    EXPECT_NE(chunk.validate(), "");
    chunk.shape = {0x2000000000000040, 0};
    EXPECT_NE(chunk.validate(), "");
    chunk.shape = {64, 64};
    EXPECT_EQ(chunk.validate(), "");
}

// A sum says in its name which parameters have no gradient, if some have none.
TEST(Messages, OnlyStatesAndSumsHaveNames) {
    const auto accepted = [](TensorKind kind, const std::string& name) {
        TensorChunk chunk;
        chunk.shape = {2, 3};
        chunk.kind = kind;
        chunk.name = name;
        return chunk.validate().empty();
    };
    for (const TensorKind kind : {TensorKind::kGradientSum, TensorKind::kGradientTotal}) {
        EXPECT_TRUE(accepted(kind, ""));
        EXPECT_TRUE(accepted(kind, "7f"));
        EXPECT_FALSE(accepted(kind, std::string(kStateNameBytesMax + 1, 'f')));
    }
    for (const TensorKind kind :
         {TensorKind::kActivation, TensorKind::kGradient, TensorKind::kStatistics}) {
        EXPECT_TRUE(accepted(kind, ""));
        EXPECT_FALSE(accepted(kind, "7f"));
    }
    for (const TensorKind kind : {TensorKind::kState, TensorKind::kTiedWeight}) {
        EXPECT_FALSE(accepted(kind, ""));
        EXPECT_TRUE(accepted(kind, "0.weight"));
    }
}

TEST(Messages, IntroductionsHaveALimit) {
    Introduce introduce;
    introduce.peers.assign(kIntroducedMax, {"pi", std::string(40, 'x')});
    EXPECT_EQ(introduce.validate(), "");
    introduce.peers.emplace_back(introduce.peers.front());
    EXPECT_NE(introduce.validate(), "");
    EXPECT_NE((Introduce{{{"pi", "short"}}}).validate(), "");
}

// JSON cannot hold other text: a Hello's went into run.json and ended the portal.
TEST(Messages, TextsThatAreNotUtf8AreRefused) {
    Hello hello;
    hello.device = "pi";
    hello.data_port = 1;
    EXPECT_EQ(hello.validate(), "");
    hello.cpu = "ARM \xff";
    EXPECT_NE(hello.validate(), "");
    EXPECT_NE((Leave{"\xc0\x80"}).validate(), "");
    EXPECT_NE((Failed{1, "\xed\xa0\x80"}).validate(), "");
    EXPECT_EQ((Failed{1, "caf\xc3\xa9"}).validate(), "");
}

}  // namespace
}  // namespace ecopipe
