// Google Benchmark micro-benchmarks of what every message pays: frames, bodies, codecs, the chunk
// path.

#include <benchmark/benchmark.h>

#include <atomic>
#include <thread>

#include "core/inbox.h"
#include "core/random.h"
#include "transport/data/data_plane.h"
#include "transport/wire/codec.h"

namespace ecopipe {
namespace {

TensorChunk chunk_message() {
    TensorChunk chunk;
    chunk.producer = 7;
    chunk.shape = {8, 64, 32, 32};
    return chunk;
}

void frame_encode(benchmark::State& state) {
    const TensorChunk chunk = chunk_message();
    std::string body;
    for (auto _ : state) {
        encode_into(chunk, body);
        benchmark::DoNotOptimize(seal(FrameHeader{}, body, kChunkBytes));
    }
}
BENCHMARK(frame_encode);

void frame_decode(benchmark::State& state) {
    const std::string body = encode(chunk_message());
    const std::vector<std::byte> payload(1024);
    FrameHeader header;
    header.type = static_cast<std::uint16_t>(MessageType::kTensorChunk);
    const auto sealed = seal(header, body, payload.size());
    const std::array<std::span<const std::byte>, 3> frames{std::span<const std::byte>(sealed),
                                                           std::as_bytes(std::span(body)),
                                                           std::span<const std::byte>(payload)};
    TensorChunk chunk;
    for (auto _ : state) {
        benchmark::DoNotOptimize(open_frames(frames));
        benchmark::DoNotOptimize(decode_into(frames[1], chunk));
    }
}
BENCHMARK(frame_decode);

HostTensor random_floats(std::int64_t count) {
    HostTensor tensor = HostTensor::allocate(DType::kF32, {count});
    Rng rng(1);
    for (float& value : tensor.as<float>()) value = static_cast<float>(rng.uniform(-1, 1));
    return tensor;
}

void codec_both_ways(benchmark::State& state, TensorCodec codec) {
    const HostTensor tensor = random_floats(1 << 18);
    for (auto _ : state) benchmark::DoNotOptimize(decode_tensor(encode_tensor(tensor, codec)));
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(tensor.bytes()));
}
BENCHMARK_CAPTURE(codec_both_ways, fp16, TensorCodec::kFp16);
BENCHMARK_CAPTURE(codec_both_ways, bf16, TensorCodec::kBf16);
BENCHMARK_CAPTURE(codec_both_ways, int8, TensorCodec::kInt8);

// One tensor at a time, from `send` on one thread to its arrival whole on another.
void chunk_path(benchmark::State& state) {
    NetLoop left_loop;
    NetLoop right_loop;
    Inbox<bool> attached;
    std::atomic<std::int64_t> arrived{0};
    DataPlane left(
        left_loop, "left",
        {[](const Delivery&) {}, [&](const std::string&, std::uint64_t) { attached.push(true); }});
    DataPlane right(
        right_loop, "right",
        {[&](const Delivery&) { ++arrived; }, [](const std::string&, std::uint64_t) {}});
    left.set_run(1, 1);
    right.set_run(1, 1);
    const auto port = right.bind({"127.0.0.1", 0});
    if (!port || !left.dial("right", {"127.0.0.1", *port}, 0) ||
        !attached.pop_until(monotonic_now() + std::chrono::seconds(10))) {
        state.SkipWithError("the channel did not open");
        return;
    }
    const HostTensor tensor = random_floats(state.range(0) / 4);
    std::int64_t sent = 0;
    for (auto _ : state) {
        left.send("right", TensorAddress{}, tensor);
        ++sent;
        while (arrived < sent) std::this_thread::yield();
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(chunk_path)->Arg(4 << 10)->Arg(64 << 10)->Arg(1 << 20)->Arg(16 << 20)->UseRealTime();

}  // namespace
}  // namespace ecopipe

BENCHMARK_MAIN();
