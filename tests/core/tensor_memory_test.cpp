#include "core/tensor_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace ecopipe {
namespace {

constexpr std::size_t kMiB = 1U << 20;

// One block, given back at the end.
class Block {
  public:
    explicit Block(std::size_t bytes) : memory_(allocate_tensor_memory(bytes)) {}
    ~Block() { free_tensor_memory(memory_); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    [[nodiscard]] void* memory() const { return memory_; }

  private:
    void* memory_;
};

// What a piece of this size is counted as: a little more than itself.
void expect_about(std::uint64_t counted, std::size_t bytes) {
    EXPECT_GE(counted, bytes);
    EXPECT_LE(counted, bytes + 8192);
}

TEST(TensorMemory, IsAlignedAndItsOwn) {
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{4096}, kMiB}) {
        const Block block(bytes);
        ASSERT_NE(block.memory(), nullptr);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.memory()) % kTensorAlignment, 0U);
        std::memset(block.memory(), 0xFF, bytes);
    }
    EXPECT_EQ(allocate_tensor_memory(SIZE_MAX), nullptr);
    free_tensor_memory(nullptr);
}

TEST(TensorMemory, IsCountedByWhatItIsTakenFor) {
    const std::size_t before = live_tensor_bytes();
    reset_peak_tensor_bytes();
    {
        const MemoryScope weights(MemoryUse::kWeights);
        const Block block(kMiB);
        {
            const MemoryScope arriving(MemoryUse::kArriving);
            const Block other(2 * kMiB);
        }
        const Block again(3 * kMiB);
        const Block moved(4 * kMiB);
        rename_tensor_memory(moved.memory(), MemoryUse::kRecovery);
        reset_peak_tensor_bytes();
        const MemoryByUse peak = peak_tensor_memory();
        expect_about(peak[MemoryUse::kWeights], 4 * kMiB);
        expect_about(peak[MemoryUse::kRecovery], 4 * kMiB);
        EXPECT_EQ(peak[MemoryUse::kArriving], 0U);
        EXPECT_EQ(peak.total(), live_tensor_bytes());
    }
    EXPECT_EQ(live_tensor_bytes(), before);
    reset_peak_tensor_bytes();
    EXPECT_EQ(peak_tensor_memory()[MemoryUse::kRecovery], 0U);
}

// The peak is that of all together, with what each was then and not with the most of each.
TEST(TensorMemory, APeakIsOneMoment) {
    reset_peak_tensor_bytes();
    {
        const MemoryScope scope(MemoryUse::kLeaving);
        const Block block(5 * kMiB);
    }
    {
        const MemoryScope scope(MemoryUse::kGradients);
        const Block block(7 * kMiB);
    }
    const MemoryByUse peak = peak_tensor_memory();
    EXPECT_EQ(peak[MemoryUse::kLeaving], 0U);
    expect_about(peak[MemoryUse::kGradients], 7 * kMiB);
    EXPECT_EQ(peak.total(), peak_tensor_bytes());
}

TEST(TensorMemory, WhatOutlivesItsLayerWasKeptForTheBackward) {
    const Block kept(kMiB);
    begin_layer_memory();
    const Block works(2 * kMiB);
    reset_peak_tensor_bytes();
    expect_about(peak_tensor_memory()[MemoryUse::kStash], kMiB);
    expect_about(peak_tensor_memory()[MemoryUse::kWorkspace], 2 * kMiB);
}

TEST(TensorMemory, ManyThreadsLoseNothing) {
    const std::size_t before = live_tensor_bytes();
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([i] {
            const MemoryScope scope(static_cast<MemoryUse>(i));
            for (int k = 0; k < 10000; ++k) {
                const Block block(static_cast<std::size_t>(64 + k));
                rename_tensor_memory(block.memory(), static_cast<MemoryUse>(k % 9));
            }
        });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(live_tensor_bytes(), before);
    reset_peak_tensor_bytes();
    EXPECT_EQ(peak_tensor_memory().total(), before);
}

}  // namespace
}  // namespace ecopipe
