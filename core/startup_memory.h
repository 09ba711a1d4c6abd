#pragma once

namespace ecopipe {

// Gives back what only a program's start has used: heap that was freed since, and the pages of its
// code and constants, which come back from their files where they are used again. For a program
// that links a large library, uses it at its start, and then stays for a month.
void release_startup_memory();

// From now on memory in pieces of 256 KiB and more returns to the system when it is freed, at the
// price of page faults, and threads that start later share one heap: for a program whose memory
// comes and goes through several threads, each of which would keep its own peak.
void return_large_memory();

}  // namespace ecopipe
