// Every message's decoder and validate(): the first byte picks the type.
#include "transport/wire/messages.h"

#include <array>

#include "fuzz/target.h"
#include "transport/wire/codec.h"
#include "transport/wire/federation_messages.h"

namespace ecopipe::fuzz {
namespace {

template <class Message>
void one(std::span<const std::byte> body) {
    const auto message = decode<Message>(body);
    if (!message) {
        ECOPIPE_CHECK(!message.error().message.empty());
        return;
    }
    const std::string again = encode(*message);
    ECOPIPE_CHECK(std::string_view(reinterpret_cast<const char*>(body.data()), body.size()) ==
                  again);
}

template <class... Messages>
void pick(std::size_t index, std::span<const std::byte> body) {
    constexpr std::array kDecoders{one<Messages>...};
    kDecoders[index % kDecoders.size()](body);
}

}  // namespace
}  // namespace ecopipe::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    if (size == 0) return 0;
    fuzz::pick<Hello, Welcome, Refuse, Ping, Pong, Configure, Ready, Begin, Done, Commit, Committed,
               Stored, Leave, ProbeLink, LinkProbed, Introduce, Fetch, Fetched, Failed, End, Attach,
               TensorChunk, Credit, Attached, ClusterHello, ClusterWelcome, Task, ModelRequest,
               ModelChunk, UpdateSlice, UpdateChunk, Verdict, FederationEnd, Unreached, ClassList,
               Trace, MemoryMoved>(data[0], fuzz::bytes(data + 1, size - 1));
    return 0;
}
