#include "stage_runtime/stage/waiting_tensors.h"

#include <gtest/gtest.h>

#include <memory>

#include "stage_runtime/stage/limits.h"

namespace ecopipe {
namespace {

// A tensor that says it has so many bytes: nothing reads them.
Delivery tensor(std::uint32_t micro_batch, std::size_t bytes) {
    static std::byte nothing{};
    TensorAddress address;
    address.kind = TensorKind::kActivation;
    address.micro_batch = micro_batch;
    return {"pi", address,
            HostTensor::wrap(DType::kU8, {static_cast<std::int64_t>(bytes)}, &nothing,
                             std::make_shared<int>())};
}

bool keep(WaitingTensors& waiting, Delivery delivery) { return waiting.keep(delivery); }
bool keep_early(WaitingTensors& waiting, Delivery delivery) { return waiting.keep_early(delivery); }

TEST(WaitingTensors, HoldSoManyBytesAndNotOneMore) {
    WaitingTensors waiting;
    EXPECT_TRUE(keep(waiting, tensor(0, kWaitingBytesMax - 1)));
    EXPECT_FALSE(keep(waiting, tensor(1, 2)));
    EXPECT_FALSE(keep_early(waiting, tensor(1, 2)));
    EXPECT_TRUE(keep_early(waiting, tensor(1, 1)));
    EXPECT_FALSE(keep(waiting, tensor(2, 1)));
    ASSERT_EQ(waiting.take_early().size(), 1U);
    EXPECT_TRUE(keep(waiting, tensor(2, 1)));
}

TEST(WaitingTensors, HoldSoManyEarlyOnesAndNotOneMore) {
    WaitingTensors waiting;
    for (std::uint32_t i = 0; i < kEarlyTensorsMax; ++i)
        ASSERT_TRUE(keep_early(waiting, tensor(i, 1)));
    EXPECT_FALSE(keep_early(waiting, tensor(kEarlyTensorsMax, 1)));
    EXPECT_TRUE(keep(waiting, tensor(kEarlyTensorsMax, 1)));
}

TEST(WaitingTensors, AreTakenOnceAndOneAddressWaitsOnce) {
    WaitingTensors waiting;
    const Delivery first = tensor(3, 8);
    EXPECT_FALSE(waiting.take(first.address));
    EXPECT_TRUE(keep(waiting, first));
    EXPECT_FALSE(keep(waiting, first));
    ASSERT_TRUE(waiting.take(first.address));
    EXPECT_FALSE(waiting.take(first.address));
    EXPECT_TRUE(keep(waiting, first));
    waiting.clear();
    EXPECT_FALSE(waiting.take(first.address));
    EXPECT_TRUE(keep(waiting, tensor(4, kWaitingBytesMax)));
}

}  // namespace
}  // namespace ecopipe
