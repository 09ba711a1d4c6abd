#pragma once
// ECOPIPE_CHECK: what only our own bug can cause. On in release. No byte from a peer, a file or
// argv may reach one.

namespace ecopipe {

// Prints the place and the broken condition to stderr and aborts.
[[noreturn]] void check_failed(const char* file, int line, const char* condition);

}  // namespace ecopipe

#define ECOPIPE_CHECK(condition)                                                   \
    do {                                                                           \
        if (!(condition)) ::ecopipe::check_failed(__FILE__, __LINE__, #condition); \
    } while (false)
