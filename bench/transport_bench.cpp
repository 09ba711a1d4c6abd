#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <thread>

#include "bench/subcommands.h"
#include "core/command_line.h"
#include "core/inbox.h"
#include "transport/data/data_plane.h"
#include "transport/net/zap_handler.h"
#include "transport/security/key_ring.h"

namespace ecopipe {
namespace {

constexpr std::size_t kSmallest = 64U << 10;
constexpr std::size_t kLargest = 64U << 20;
constexpr auto kPatience = std::chrono::seconds(20);
constexpr std::uint64_t kRun = 1;

double gb_per_s(std::uint64_t bytes, Duration time) {
    return static_cast<double>(bytes) / static_cast<double>(time.count());
}

// Of two devices that know each other; their files go with the object.
struct Keys {
    Keys() = default;
    Keys(const Keys&) = delete;
    Keys& operator=(const Keys&) = delete;
    ~Keys() {
        std::error_code ignored;
        if (!directory.empty()) std::filesystem::remove_all(directory, ignored);
    }

    std::string directory;
    std::shared_ptr<KeyRing> sender;
    std::shared_ptr<KeyRing> receiver;
};

Result<void> make_keys(Keys& keys) {
    std::string directory = std::filesystem::temp_directory_path() / "ecopipe-keys-XXXXXX";
    if (::mkdtemp(directory.data()) == nullptr)
        return fail(ExitCode::kRunFailed,
                    fmt::format("{}: cannot create: {}", directory, std::strerror(errno)));
    keys.directory = directory;
    std::map<std::string, PublicKey> both;
    for (const char* name : {"sender", "receiver"}) {
        ECOPIPE_ASSIGN_OR_RETURN(both[name], create_keys(directory + "/" + name, name));
    }
    for (const auto& [ring, name] :
         {std::pair{&keys.sender, "sender"}, std::pair{&keys.receiver, "receiver"}}) {
        ECOPIPE_ASSIGN_OR_RETURN(KeyRing opened, KeyRing::open(directory + "/" + name));
        opened.introduce(both);
        *ring = std::make_shared<KeyRing>(std::move(opened));
    }
    return {};
}

// `count` tensors of `bytes` from one device to another, each with a network thread of its own;
// encrypted when there are `keys`.
Result<double> through_data_plane(std::size_t bytes, std::uint64_t count, const Keys& keys) {
    NetLoop sending_loop;
    NetLoop receiving_loop;
    use_keys(sending_loop, keys.sender);
    use_keys(receiving_loop, keys.receiver);
    std::atomic<std::uint64_t> received{0};
    Inbox<bool> attached;
    Inbox<bool> finished;
    Inbox<bool> room;
    DataPlane receiver(receiving_loop, "receiver",
                       {[&](const Delivery&) {
                            if (++received == count) finished.push(true);
                        },
                        [](const std::string&, std::uint64_t) {}});
    DataPlane sender(sending_loop, "sender",
                     {[](const Delivery&) {},
                      [&](const std::string&, std::uint64_t) { attached.push(true); },
                      {},
                      [&] { room.push(true); }});
    sender.set_run(kRun, 0);
    receiver.set_run(kRun, 0);
    ECOPIPE_ASSIGN_OR_RETURN(const std::uint16_t port, receiver.bind({"127.0.0.1", 0}));
    ECOPIPE_RETURN_IF_ERROR(sender.dial("receiver", {"127.0.0.1", port}, 0));
    if (!attached.pop_until(monotonic_now() + kPatience))
        return fail(ExitCode::kUnreachable, "the data channel did not open");
    const HostTensor tensor = HostTensor::allocate(DType::kU8, {static_cast<std::int64_t>(bytes)});
    std::memset(const_cast<std::byte*>(tensor.data()), 1, bytes);
    const Instant started = monotonic_now();
    for (std::uint64_t i = 0; i < count; ++i) {
        while (!sender.has_room() &&
               !room.pop_until(monotonic_now() + std::chrono::milliseconds(100)))
            if (signal_received() != 0 || monotonic_now() > started + kPatience)
                return fail(ExitCode::kRunFailed, "the data channel stands still");
        TensorAddress address;
        address.step = i;
        sender.send("receiver", address, tensor);
    }
    if (!finished.pop_until(monotonic_now() + kPatience))
        return fail(ExitCode::kRunFailed, "the tensors did not arrive");
    return gb_per_s(bytes * count, monotonic_now() - started);
}

class Socket {
  public:
    explicit Socket(int descriptor) : descriptor_(descriptor) {}
    ~Socket() {
        if (descriptor_ >= 0) ::close(descriptor_);
    }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    [[nodiscard]] int get() const { return descriptor_; }

  private:
    int descriptor_;
};

// The yardstick: the same bytes, written and read in blocks of a chunk over one TCP connection,
// from and to memory of a tensor's size.
Result<double> through_tcp(std::size_t bytes, std::uint64_t count) {
    const auto failed = [](const char* what) {
        return fail(ExitCode::kRunFailed, fmt::format("tcp: {}: {}", what, std::strerror(errno)));
    };
    const Socket listener(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* name = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener.get(), name, length) != 0 || ::listen(listener.get(), 1) != 0 ||
        ::getsockname(listener.get(), name, &length) != 0)
        return failed("listen");
    const Socket out(::socket(AF_INET, SOCK_STREAM, 0));
    if (::connect(out.get(), name, length) != 0) return failed("connect");
    const Socket in(::accept(listener.get(), nullptr, nullptr));
    if (in.get() < 0) return failed("accept");
    const int yes = 1;
    ::setsockopt(out.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    const std::uint64_t total = bytes * count;
    std::vector<std::byte> from(bytes, std::byte{1});
    std::vector<std::byte> to(bytes);
    const Instant started = monotonic_now();
    std::thread writer([&] {
        for (std::uint64_t done = 0; done < total;) {
            const std::size_t at = done % bytes;
            const auto n = ::send(out.get(), from.data() + at, std::min(bytes - at, kChunkBytes),
                                  MSG_NOSIGNAL);
            if (n <= 0) return;
            done += static_cast<std::uint64_t>(n);
        }
    });
    std::uint64_t done = 0;
    while (done < total) {
        const std::size_t at = done % bytes;
        const auto n = ::recv(in.get(), to.data() + at, std::min(bytes - at, kChunkBytes), 0);
        if (n <= 0) break;
        done += static_cast<std::uint64_t>(n);
    }
    const Duration time = monotonic_now() - started;
    ::shutdown(in.get(), SHUT_RDWR);
    writer.join();
    if (done < total) return failed("receive");
    return gb_per_s(total, time);
}

template <class Measure>
Result<double> best_of(int turns, const Measure& measure) {
    double best = 0;
    for (int i = 0; i < turns; ++i) {
        ECOPIPE_ASSIGN_OR_RETURN(const double rate, measure());
        best = std::max(best, rate);
    }
    return best;
}

}  // namespace

Result<ExitCode> bench_transport(int argc, const char* const* argv) {
    CommandLine line("ecopipe-bench transport",
                     "GB/s of tensors from one device to another over loopback, and of plain TCP");
    line.integer("mib", "MiB to send in each measurement", {64, 1 << 20}, 1024);
    line.integer("turns", "measurements of each; the best counts", {1, 100}, 3);
    line.flag("json", "print one JSON document");
    ECOPIPE_ASSIGN_OR_RETURN(const auto leave, line.parse(argc, argv));
    if (leave) return *leave;
    watch_signals();
    const auto total = static_cast<std::uint64_t>(line.get_integer("mib")) << 20;
    const int turns = static_cast<int>(line.get_integer("turns"));
    OrderedJson rows = OrderedJson::array();
    if (!line.get_flag("json"))
        fmt::print("{:>12} {:>10} {:>11} {:>10} {:>7}\n", "bytes", "GB/s", "curve GB/s", "tcp GB/s",
                   "ratio");
    const Keys none;
    Keys keys;
    ECOPIPE_RETURN_IF_ERROR(make_keys(keys));
    for (std::size_t bytes = kSmallest; bytes <= kLargest; bytes *= 4) {
        const std::uint64_t count = std::max<std::uint64_t>(1, total / bytes);
        ECOPIPE_ASSIGN_OR_RETURN(const double ours, best_of(turns, [&] {
                                     return through_data_plane(bytes, count, none);
                                 }));
        ECOPIPE_ASSIGN_OR_RETURN(const double curve, best_of(turns, [&] {
                                     return through_data_plane(bytes, count, keys);
                                 }));
        ECOPIPE_ASSIGN_OR_RETURN(const double tcp,
                                 best_of(turns, [&] { return through_tcp(bytes, count); }));
        rows.push_back(
            {{"bytes", bytes}, {"curve", false}, {"gb_per_s", ours}, {"tcp_gb_per_s", tcp}});
        rows.push_back(
            {{"bytes", bytes}, {"curve", true}, {"gb_per_s", curve}, {"tcp_gb_per_s", tcp}});
        if (!line.get_flag("json"))
            fmt::print("{:>12} {:>10.2f} {:>11.2f} {:>10.2f} {:>7.2f}\n", bytes, ours, curve, tcp,
                       ours / tcp);
    }
    if (line.get_flag("json")) fmt::print("{}\n", OrderedJson{{"rows", rows}}.dump(2));
    return ExitCode::kDone;
}

}  // namespace ecopipe
