// plan.json, as a portal reads it and as a stage gets it in Configure; what is accepted is checked,
// written and read again.
#include "domain/plan.h"

#include "fuzz/target.h"
#include "planner/schedule/plan_file.h"

namespace {
constexpr int kMicroBatchesTried = 64;
}

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace ecopipe;
    const auto plan = parse_plan(fuzz::text(data, size), "plan.json");
    if (!plan) return 0;
    const std::string text = plan_text(*plan);
    const auto again = parse_plan(text, "again");
    ECOPIPE_CHECK(again && plan_text(*again) == text);
    if (check_plan(*plan, "plan.json") && plan->micro_batches <= kMicroBatchesTried)
        static_cast<void>(plan_actions(*plan, plan->micro_batches));
    return 0;
}
