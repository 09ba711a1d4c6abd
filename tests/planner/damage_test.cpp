// Files with random damage: refused with their name, or read and used; never a crash, a hang or a
// plan of nonsense.

#include <gtest/gtest.h>

#include <cmath>

#include "core/files.h"
#include "core/random.h"
#include "planner/schedule/plan_file.h"
#include "planner/search/partition.h"
#include "planner/simulate/plan_timeline.h"
#include "tests/planner/data.h"

namespace ecopipe {
namespace {

std::string text_of(const char* name) { return *read_file(planner_data() + name, 1 << 24); }

// One to three bytes replaced, removed or doubled, or a number replaced by an absurd one.
std::string damaged(std::string text, Rng& rng) {
    constexpr std::string_view kBytes = "0123456789-.eE+[]{}\",:x \n\0\xff";
    constexpr const char* kAbsurd[] = {"-1",  "1e308", "1e-308", "0",  "99999999999999999999",
                                       "NaN", "null",  "\"\"",   "[]", "true",
                                       "2.5"};
    for (std::uint64_t n = 1 + rng.below(3); n > 0 && !text.empty(); --n) {
        const auto at = static_cast<std::size_t>(rng.below(text.size()));
        const std::size_t digit = text.find_first_of("123456789", at);
        switch (rng.below(5)) {
            case 0:
                text[at] = kBytes[static_cast<std::size_t>(rng.below(kBytes.size()))];
                break;
            case 1:
                text.erase(at, 1 + static_cast<std::size_t>(rng.below(8)));
                break;
            case 2:
                text.insert(at, text.substr(at, 1 + static_cast<std::size_t>(rng.below(40))));
                break;
            default:
                if (digit == std::string::npos) break;
                const std::size_t end =
                    std::min(text.find_first_not_of("0123456789.eE+-", digit), text.size());
                text.replace(digit, end - digit, kAbsurd[rng.below(std::size(kAbsurd))]);
        }
    }
    return text;
}

void expect_named(const Error& error, const std::string& source) {
    EXPECT_EQ(error.message.find(source + ": "), 0U) << error.message;
    EXPECT_EQ(error.message.find('\n'), std::string::npos) << error.message;
}

TEST(Damage, ProfilesAndClusters) {
    Rng rng(41);
    const std::string profile_text = text_of("pi_partial.json");
    const std::string cluster_text = text_of("tight.yaml");
    const ModelProfile hub = *read_profile(planner_data() + "hub.json");
    int refused = 0;
    int planned = 0;
    for (int i = 0; i < 600; ++i) {
        const auto profile = parse_profile(damaged(profile_text, rng), "p.json");
        const auto cluster = parse_cluster(damaged(cluster_text, rng), "c.yaml");
        if (!profile) expect_named(profile.error(), "p.json");
        if (!cluster) expect_named(cluster.error(), "c.yaml");
        refused += profile && cluster ? 0 : 1;
        if (!cluster) continue;
        PlanRequest request{4, 4, "1f1b", std::nullopt, 0.01};
        const auto plan =
            search_plan(*cluster, profile ? std::vector{hub, *profile} : std::vector{hub}, request);
        if (!plan) continue;
        ++planned;
        EXPECT_TRUE(std::isfinite(plan->predicted->step_ms));
        EXPECT_GE(plan->predicted->step_ms, plan->predicted->lower_bound_ms * (1 - 1e-12));
    }
    EXPECT_GT(refused, 200);
    EXPECT_GT(planned, 20);
}

TEST(Damage, Plans) {
    Rng rng(42);
    const Cluster cluster = *read_cluster(planner_data() + "home.yaml");
    const std::vector<ModelProfile> profiles =
        *read_profiles(cluster, {planner_data() + "hub.json"});
    int refused = 0;
    for (const char* name :
         {"golden/home_own.json", "golden/home_zb_h1.json", "golden/home_interleaved.json"}) {
        const std::string text = text_of(name);
        for (int i = 0; i < 500; ++i) {
            const auto plan = parse_plan(damaged(text, rng), "plan.json");
            if (!plan) {
                expect_named(plan.error(), "plan.json");
                ++refused;
                continue;
            }
            const auto played = play_plan(cluster, profiles, *plan, "plan.json");
            if (played) {
                EXPECT_TRUE(std::isfinite(played->timeline.step_ms));
            }
        }
    }
    EXPECT_GT(refused, 700);
}

}  // namespace
}  // namespace ecopipe
