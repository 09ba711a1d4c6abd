#pragma once
// The operator sees who tried, but nobody can fill the disk by trying: a burst of lines, then one a
// second, with how many were left out.

#include <cstdint>
#include <string>

#include "transport/net/connection_table.h"

namespace ecopipe {

class StrangerLog {
  public:
    void tell(const std::string& line);

  private:
    TokenBucket rate_{kStrangerLogBurst, kStrangerLogsPerSecond};
    std::uint64_t left_out_ = 0;
};

}  // namespace ecopipe
