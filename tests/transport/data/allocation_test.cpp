// What the way of a chunk allocates. In a program of its own: it replaces operator new.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <new>
#include <thread>

#include "core/clock.h"
#include "core/inbox.h"
#include "transport/data/data_plane.h"

namespace {

std::atomic<std::uint64_t> g_news{0};

}  // namespace

void* operator new(std::size_t size) {
    ++g_news;
    if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace ecopipe {
namespace {

constexpr std::uint64_t kTensors = 200;

class Channel {
  public:
    Channel() {
        const auto port = right_.bind({"127.0.0.1", 0});
        left_.set_run(9, 1);
        right_.set_run(9, 1);
        open_ = port && left_.dial("right", {"127.0.0.1", *port}, 0) &&
                attached_.pop_until(monotonic_now() + std::chrono::seconds(10));
    }
    [[nodiscard]] bool open() const { return open_; }

    // operator new's calls, in the whole process, for a tensor of so many chunks; after warming up,
    // and without those that the time alone brings (connections are looked at ever again).
    double news_per_tensor(std::size_t chunks) {
        const HostTensor tensor =
            HostTensor::allocate(DType::kU8, {static_cast<std::int64_t>(chunks * kChunkBytes)});
        send(tensor, 20);
        const Count idle = count([] { std::this_thread::sleep_for(std::chrono::seconds(1)); });
        const Count busy = count([&] { send(tensor, kTensors); });
        return (busy.news - idle.news / idle.seconds * busy.seconds) / kTensors;
    }

  private:
    struct Count {
        double news = 0;
        double seconds = 0;
    };
    static Count count(const std::function<void()>& work) {
        const Instant start = monotonic_now();
        const std::uint64_t before = g_news;
        work();
        return {static_cast<double>(g_news - before), to_ms(monotonic_now() - start) / 1000};
    }
    void send(const HostTensor& tensor, std::uint64_t count) {
        for (std::uint64_t i = 0; i < count; ++i) {
            const std::uint64_t arrived = arrived_;
            left_.send("right", TensorAddress{}, tensor);
            while (arrived_ == arrived) std::this_thread::yield();
        }
    }
    NetLoop loop_;
    Inbox<bool> attached_;
    std::atomic<std::uint64_t> arrived_{0};
    DataPlane left_{loop_,
                    "left",
                    {[](const Delivery&) {},
                     [this](const std::string&, std::uint64_t) { attached_.push(true); }}};
    DataPlane right_{
        loop_,
        "right",
        {[this](const Delivery&) { ++arrived_; }, [](const std::string&, std::uint64_t) {}}};
    bool open_ = false;
};

// Credits, which come once per MiB, are messages too.
TEST(Allocation, ChunksOfATensorAllocateNothing) {
    Channel channel;
    ASSERT_TRUE(channel.open());
    const double one = channel.news_per_tensor(1);
    const double thirteen = channel.news_per_tensor(13);
    std::printf("operator new: %.2f a tensor of one chunk, %.2f of thirteen\n", one, thirteen);
    EXPECT_LT((thirteen - one) / 12, 0.2);
    EXPECT_LT(one, 9);
}

}  // namespace
}  // namespace ecopipe
