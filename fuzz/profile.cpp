// profile.json.
#include "fuzz/target.h"
#include "planner/cost/model_profile.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    static_cast<void>(parse_profile(fuzz::text(data, size), "profile.json"));
    return 0;
}
