#include "core/clock.h"

#include <ctime>

namespace ecopipe {

Duration thread_cpu_time() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + Duration(now.tv_nsec);
}

}  // namespace ecopipe
