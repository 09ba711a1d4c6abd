#include "core/large_memory.h"

#include <malloc.h>

namespace ecopipe {

void return_large_memory() {
    ::mallopt(M_MMAP_THRESHOLD, 256 << 10);
    ::mallopt(M_ARENA_MAX, 1);
}

}  // namespace ecopipe
