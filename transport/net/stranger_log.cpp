#include "transport/net/stranger_log.h"

#include "core/log.h"

namespace ecopipe {

void StrangerLog::tell(const std::string& line) {
    if (!rate_.take(monotonic_now())) {
        ++left_out_;
        return;
    }
    if (left_out_ > 0) log_warn("{} more like the last were not told", left_out_);
    left_out_ = 0;
    log_warn("{}", line);
}

}  // namespace ecopipe
