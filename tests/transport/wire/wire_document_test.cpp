// docs/WIRE.md is the truth: every example in it opens, decodes and encodes to the same bytes
// again.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "transport/wire/codec.h"
#include "transport/wire/federation_messages.h"
#include "transport/wire/frame.h"
#include "transport/wire/messages.h"

namespace ecopipe {
namespace {

struct Example {
    int type = 0;
    std::string name;
    std::string header;
    std::string body;
};

std::string bytes_of(const std::string& hex) {
    std::string bytes;
    std::istringstream words(hex);
    for (std::string word; words >> word;)
        bytes.push_back(static_cast<char>(std::stoi(word, nullptr, 16)));
    return bytes;
}

// Sections "### NUMBER Name" with one code block: the header's bytes, an empty line, the body's.
std::vector<Example> read_examples() {
    std::ifstream file(ECOPIPE_SOURCE_DIR "/docs/WIRE.md");
    std::vector<Example> examples;
    std::string line;
    std::string* target = nullptr;
    std::string header;
    std::string body;
    bool in_messages = false;
    while (std::getline(file, line)) {
        if (line == "## Messages") in_messages = true;
        if (!in_messages) continue;
        if (line.rfind("### ", 0) == 0) {
            std::istringstream title(line.substr(4));
            Example example;
            title >> example.type >> example.name;
            examples.push_back(example);
            header.clear();
            body.clear();
        } else if (line == "```") {
            if (target != nullptr) {
                examples.back().header = bytes_of(header);
                examples.back().body = bytes_of(body);
                target = nullptr;
            } else {
                target = &header;
            }
        } else if (target != nullptr) {
            if (line.empty()) {
                target = &body;
            } else {
                *target += line + " ";
            }
        }
    }
    return examples;
}

std::span<const std::byte> view(const std::string& text) { return std::as_bytes(std::span(text)); }

template <class Message>
void expect_same_bytes(const std::string& body) {
    const auto message = decode<Message>(view(body));
    ASSERT_TRUE(message) << message.error().message;
    EXPECT_EQ(encode(*message), body);
}

template <class... Messages>
std::map<int, std::function<void(const std::string&)>> round_trips() {
    return {{static_cast<int>(Messages::kType), expect_same_bytes<Messages>}...};
}

TEST(WireDocument, EveryExampleOpensAndEncodesToTheSameBytes) {
    const auto known =
        round_trips<Hello, Welcome, Refuse, Ping, Pong, Configure, Ready, Begin, Done, Commit,
                    Committed, Stored, Leave, ProbeLink, LinkProbed, Introduce, Unreached, Trace,
                    MemoryMoved, Fetch, Fetched, Failed, End, Attach, TensorChunk, Credit, Attached,
                    ClusterHello, ClusterWelcome, Task, ModelRequest, ModelChunk, UpdateSlice,
                    UpdateChunk, Verdict, FederationEnd, UploadGrant, ClusterStatus, ClassList>();
    const std::vector<Example> examples = read_examples();
    EXPECT_EQ(examples.size(), known.size());
    for (const Example& example : examples) {
        SCOPED_TRACE(example.name);
        ASSERT_TRUE(known.contains(example.type));
        ASSERT_EQ(example.header.size(), sizeof(FrameHeader));
        FrameHeader written;
        std::memcpy(&written, example.header.data(), sizeof written);
        const std::string payload(written.payload_bytes, '\0');
        std::vector<std::span<const std::byte>> frames{view(example.header), view(example.body)};
        if (!payload.empty()) frames.push_back(view(payload));
        const auto header = open_frames(frames);
        ASSERT_TRUE(header) << header.error().message;
        EXPECT_EQ(header->type, example.type);
        known.at(example.type)(example.body);
        // And sealing it gives the documented header.
        const auto sealed = seal(*header, example.body, payload.size());
        EXPECT_EQ(std::memcmp(sealed.data(), example.header.data(), sealed.size()), 0);
    }
}

}  // namespace
}  // namespace ecopipe
