// A schedule of the user's own, CSV.
#include "fuzz/target.h"
#include "planner/schedule/schedule_csv.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    static_cast<void>(parse_schedule(fuzz::text(data, size), "schedule.csv"));
    static_cast<void>(parse_actions(fuzz::text(data, size), "line"));
    return 0;
}
