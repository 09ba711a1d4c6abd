#include "core/startup_memory.h"

#include <malloc.h>
#include <sys/mman.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

namespace ecopipe {

void return_large_memory() {
    ::mallopt(M_MMAP_THRESHOLD, 256 << 10);
    ::mallopt(M_ARENA_MAX, 1);
}

void release_startup_memory() {
    ::malloc_trim(0);
    // An entry is "BEGIN-END rwxp OFFSET DEVICE INODE PATH" and lines of "Name: VALUE kB". What is
    // not writable and has no page of its own, all of it clean, is read from its file again.
    std::ifstream maps("/proc/self/smaps");
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    bool from_file = false;
    for (std::string line; std::getline(maps, line);) {
        std::istringstream fields(line);
        std::string first;
        fields >> first;
        if (first == "Anonymous:") {
            std::uint64_t own_kib = 1;
            fields >> own_kib;
            if (from_file && own_kib == 0)
                ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
        } else if (!first.ends_with(':')) {
            std::istringstream range(first);
            char dash = 0;
            std::string permissions;
            std::string offset;
            std::string device;
            std::string inode;
            std::string path;
            range >> std::hex >> begin >> dash >> end;
            fields >> permissions >> offset >> device >> inode >> path;
            from_file = range && fields && permissions[1] == '-' && permissions[3] == 'p' &&
                        path.starts_with('/');
        }
    }
}

}  // namespace ecopipe
