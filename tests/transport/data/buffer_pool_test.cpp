#include "transport/data/buffer_pool.h"

#include <gtest/gtest.h>

#include "core/tensor_memory.h"

namespace ecopipe {
namespace {

TEST(BufferPool, UsesMemoryAgainOnceNobodyHoldsIt) {
    BufferPool pool;
    const std::byte* first = nullptr;
    {
        const HostTensor tensor = pool.take(DType::kF32, {1000});
        first = tensor.data();
    }
    const HostTensor again = pool.take(DType::kF32, {10, 100});
    EXPECT_EQ(again.data(), first);
    const HostTensor another = pool.take(DType::kF32, {1000});
    EXPECT_NE(another.data(), first);
}

TEST(BufferPool, DropsWhatIsIdleAndThatAlone) {
    BufferPool pool;
    const std::size_t before = live_tensor_bytes();
    const HostTensor held = pool.take(DType::kF32, {1000});
    static_cast<void>(pool.take(DType::kF32, {100000}));
    static_cast<void>(pool.take(DType::kF32, {200000}));
    EXPECT_GT(live_tensor_bytes(), before + 4 * 300000);
    pool.drop_idle();
    EXPECT_LT(live_tensor_bytes(), before + 8192);
    EXPECT_GT(live_tensor_bytes(), before);
    EXPECT_EQ(pool.take(DType::kF32, {1000}).data() == held.data(), false);
}

}  // namespace
}  // namespace ecopipe
