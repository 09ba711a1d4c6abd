#pragma once

namespace ecopipe {

// Raises how many files this process may have open to the most that the system lets it have. For
// programs with a socket for each of very many peers: the usual soft limit is 1024.
void raise_open_files();

}  // namespace ecopipe
