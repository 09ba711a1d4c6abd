// A pair of IDX files, plain or gzipped; the first two bytes say where the images end.
#include <algorithm>

#include "fuzz/target.h"
#include "stage_runtime/data/image_dataset.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    static const fuzz::MemoryDirectory kDirectory;
    if (size < 2) return 0;
    const std::size_t images = std::min<std::size_t>(data[0] | (data[1] << 8), size - 2);
    kDirectory.put("t10k-images-idx3-ubyte", fuzz::text(data + 2, images));
    kDirectory.put("t10k-labels-idx1-ubyte", fuzz::text(data + 2 + images, size - 2 - images));
    if (const auto read = read_idx(kDirectory.path(), false))
        ECOPIPE_CHECK(read->pixels.size() == read->labels.size() *
                                                 static_cast<std::size_t>(read->shape[1]) *
                                                 static_cast<std::size_t>(read->shape[2]));
    return 0;
}
