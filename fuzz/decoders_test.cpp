// Every decoder over its corpus and damaged copies of it, by the compiler of the programs and
// without a fuzzer: what fuzzing has found stays found.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/random.h"

// The targets, each under a name of its own (CMakeLists.txt).
using Target = int(const std::uint8_t* data, std::size_t size);
#define ECOPIPE_TARGETS(X)                                                                \
    X(messages)                                                                           \
    X(frames)                                                                             \
    X(tensors)                                                                            \
    X(keys)                                                                               \
    X(cluster)                                                                            \
    X(profile) X(plan) X(schedule) X(safetensors) X(graph) X(idx) X(cifar) X(jpeg) X(png) \
        X(checkpoint) X(server_config) X(journal)
#define ECOPIPE_DECLARE(name) extern "C" Target fuzz_##name;
ECOPIPE_TARGETS(ECOPIPE_DECLARE)
#undef ECOPIPE_DECLARE

namespace ecopipe {
namespace {

constexpr int kDamagedCopies = 100;

struct Decoder {
    const char* name;
    Target* target;
};

class Decoders : public ::testing::TestWithParam<Decoder> {};

void damage(std::string& bytes, Rng& rng) {
    if (bytes.empty()) return;
    const std::size_t at = rng.below(bytes.size());
    switch (rng.below(4)) {
        case 0:
            bytes[at] = static_cast<char>(rng.below(256));
            return;
        case 1:
            bytes[at] = static_cast<char>(bytes[at] ^ (1 << rng.below(8)));
            return;
        case 2:
            bytes.resize(at);
            return;
        default:
            bytes.insert(at, bytes.substr(rng.below(bytes.size()), 1 + rng.below(16)));
    }
}

TEST_P(Decoders, BearTheirCorpusAndDamagedCopiesOfIt) {
    const std::filesystem::path corpus =
        std::filesystem::path(ECOPIPE_SOURCE_DIR) / "fuzz/corpus" / GetParam().name;
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(corpus)) {
        std::ifstream file(entry.path(), std::ios::binary);
        const std::string whole{std::istreambuf_iterator<char>(file), {}};
        Rng rng(keyed_seed(1, entry.path().filename().string()));
        for (int copy = 0; copy <= kDamagedCopies; ++copy) {
            std::string bytes = whole;
            for (int times = 0; times < copy % 4; ++times) damage(bytes, rng);
            EXPECT_EQ(GetParam().target(reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                        bytes.size()),
                      0);
        }
        ++files;
    }
    EXPECT_GT(files, 0);
}

#define ECOPIPE_DECODER(name) Decoder{#name, fuzz_##name},
const std::vector<Decoder> kDecoders = {ECOPIPE_TARGETS(ECOPIPE_DECODER)};
#undef ECOPIPE_DECODER
INSTANTIATE_TEST_SUITE_P(All, Decoders, ::testing::ValuesIn(kDecoders),
                         [](const auto& decoder) { return std::string(decoder.param.name); });

}  // namespace
}  // namespace ecopipe
