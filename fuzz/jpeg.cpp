// A JPEG file.
#include "fuzz/picture.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    fuzz::decode_any_picture(fuzz::text(data, size));
    return 0;
}
