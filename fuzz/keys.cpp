// Key files; what is read is written and read again the same.
#include "fuzz/target.h"
#include "transport/security/key_file.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    const auto text = fuzz::text(data, size);
    if (const auto key = parse_public_key(text, "file"))
        ECOPIPE_CHECK(parse_public_key(public_key_file(*key), "file") == *key);
    if (const auto pair = parse_secret_key(text, "file")) {
        const auto again = parse_secret_key(secret_key_file(*pair), "file");
        ECOPIPE_CHECK(again && again->name == pair->name && again->public_key == pair->public_key);
    }
    return 0;
}
