#pragma once

namespace ecopipe {

// From now on memory in pieces of 256 KiB and more returns to the system when it is freed, at the
// price of page faults, and threads that start later share one heap: for a program whose memory
// comes and goes through several threads, each of which would keep its own peak.
void return_large_memory();

}  // namespace ecopipe
