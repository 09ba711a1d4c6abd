#include "core/sha256.h"

#include <gtest/gtest.h>

#include "core/files.h"
#include "core/random.h"

namespace ecopipe {
namespace {

TEST(Sha256, VectorsOfFips180) {
    EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256_hex("abc"),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    EXPECT_EQ(sha256_hex(std::string(1000000, 'a')),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, CutsChangeNothing) {
    Rng rng(1);
    std::string text(1000, '\0');
    for (char& c : text) c = static_cast<char>(rng.below(256));
    const std::string expected = sha256_hex(text);
    for (int run = 0; run < 300; ++run) {
        Sha256 hash;
        for (std::size_t at = 0; at < text.size();) {
            const std::size_t part = std::min<std::size_t>(rng.below(200), text.size() - at);
            hash.update(std::as_bytes(std::span(text)).subspan(at, part));
            at += part;
        }
        EXPECT_EQ(hash.hex(), expected);
    }
}

}  // namespace
}  // namespace ecopipe
