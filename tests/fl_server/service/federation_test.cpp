#include "fl_server/service/federation.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "core/sha256.h"
#include "core/strict_json.h"
#include "fl_server/numbers/samples_cap.h"
#include "fl_server/service/replay.h"
#include "fl_server/service/server_config.h"
#include "fl_server/strategies/registry.h"
#include "tests/fl_server/service/federation_run.h"
#include "tests/fl_server/service/toy_federation.h"

namespace ecopipe::test {
namespace {

namespace fs = std::filesystem;
constexpr std::int64_t kElements = kFederationElements;

TEST_F(FederationRun, ThrownAwayAfterEveryTurnItEndsWithTheSameBytes) {
    ASSERT_TRUE(open());
    all_say_hello();
    run_to_end();
    const std::string expected = *federation_->global();
    fs::remove_all(directory_);
    tasks_.clear();
    ASSERT_TRUE(open());
    all_say_hello();
    for (int i = 0; i < 200 && !federation_->finished(); ++i) {
        const auto reopened = open();
        ASSERT_TRUE(reopened) << reopened.error().message;
        // The clusters come back; who has its task says so.
        turn([&] {
            for (const std::string& name : clusters_)
                ASSERT_TRUE(federation_->hello(
                    {name, 0, 100, {}}, tasks_.contains(name) ? tasks_.at(name).sequence : 0));
        });
        if (!tasks_.empty()) answer(std::prev(tasks_.end())->first);
    }
    ASSERT_TRUE(federation_->finished());
    EXPECT_TRUE(*federation_->global() == expected);
    const std::string log = rounds();
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 3);
    for (const auto& [cluster, verdicts] : verdicts_) {
        for (const Verdict& v : verdicts) EXPECT_TRUE(v.accepted) << v.reason;
    }
}

TEST_F(FederationRun, BadUpdatesAreRejectedWithReasonsAndChangeNothing) {
    // The reference: the same without the liar.
    clusters_ = {"a", "b", "c"};
    parameters_["min_clients"] = 3;
    options_.rounds = 1;
    ASSERT_TRUE(open());
    all_say_hello();
    run_to_end();
    const std::string expected = *federation_->global();
    struct Lie {
        const char* reason;
        std::function<void(UpdateSlice&, std::string&)> tell;
    };
    const auto set_float = [](std::string& bytes, std::size_t at, float value) {
        std::memcpy(bytes.data() + at * 4, &value, 4);
    };
    const std::vector<Lie> lies{
        {"tensor w has a value that is not finite",
         [&](UpdateSlice& s, std::string& b) {
             set_float(b, kElements - 1, std::numeric_limits<float>::quiet_NaN());
             s.sha256 = sha256_hex(b);
         }},
        {"moves a value by 1e+30",
         [&](UpdateSlice& s, std::string& b) {
             for (std::size_t i = 0; i < kElements; ++i) set_float(b, i, 1e30F);
             s.sha256 = sha256_hex(b);
         }},
        {"have 119996 bytes, expected 120000",
         [](UpdateSlice& s, std::string& b) {
             b.resize(b.size() - 4);
             s.bytes = b.size();
             s.sha256 = sha256_hex(b);
         }},
        {"starts from version 7, expected 0",
         [](UpdateSlice& s, std::string&) { s.base_version = 7; }},
        {"claims 0 samples", [](UpdateSlice& s, std::string&) { s.samples = 0; }},
        {"claims 18446744073709551615 samples",
         [](UpdateSlice& s, std::string&) { s.samples = UINT64_MAX; }},
        {"do not have the hash announced",
         [](UpdateSlice& s, std::string&) { s.sha256 = std::string(64, '0'); }},
        {"has norm", [&](UpdateSlice& s, std::string& b) {
             set_float(b, 5, 5e8F);
             s.sha256 = sha256_hex(b);
         }}};
    clusters_.insert("liar");
    parameters_["min_clients"] = 4;
    for (const Lie& lie : lies) {
        fs::remove_all(directory_);
        tasks_.clear();
        verdicts_.clear();
        ASSERT_TRUE(open());
        all_say_hello();
        const Task task = tasks_.at("liar");
        tasks_.erase("liar");
        std::string bytes = trained("liar", 0);
        UpdateSlice slice = announcement(task, bytes);
        lie.tell(slice, bytes);
        upload("liar", slice, bytes);
        run_to_end();
        EXPECT_TRUE(*federation_->global() == expected) << lie.reason;
        ASSERT_EQ(verdicts_["liar"].size(), 1U) << lie.reason;
        EXPECT_FALSE(verdicts_["liar"][0].accepted);
        EXPECT_NE(rounds().find(lie.reason), std::string::npos) << rounds();
    }
}

TEST_F(FederationRun, HalfAnUpdateOrNoneIsLeftOutAtTheDeadline) {
    clusters_ = {"a", "b", "c"};
    parameters_["min_clients"] = 3;
    options_.rounds = 1;
    ASSERT_TRUE(open());
    all_say_hello();
    run_to_end();
    const std::string expected = *federation_->global();
    clusters_.insert("liar");
    parameters_["min_clients"] = 4;
    for (const bool half : {false, true}) {
        fs::remove_all(directory_);
        tasks_.clear();
        ASSERT_TRUE(open());
        all_say_hello();
        const Task task = tasks_.at("liar");
        tasks_.erase("liar");
        const std::string bytes = trained("liar", 0);
        if (half) upload("liar", announcement(task, bytes), bytes, 2);
        const double before = now_s_;
        run_to_end();
        EXPECT_LT(now_s_ - before, 6);
        EXPECT_TRUE(*federation_->global() == expected);
        EXPECT_NE(rounds().find("\"liar\":\"no update before the round's deadline\""),
                  std::string::npos)
            << rounds();
    }
}

// An update that comes just after the deadline ends the round as well as the tick does.
TEST_F(FederationRun, WhoIsLateIsNamedHoweverTheRoundEnds) {
    options_.rounds = 1;
    ASSERT_TRUE(open());
    all_say_hello();
    answer("a");
    now_s_ += 10;
    answer("b");
    ASSERT_TRUE(federation_->finished());
    const auto line = parse_json(rounds(), "rounds.jsonl");
    EXPECT_EQ(line->at("clusters"), Json::array({"a", "b"}));
    const char* late = "no update before the round's deadline";
    EXPECT_EQ(line->at("rejected"), Json({{"c", late}, {"d", late}}));
}

TEST_F(FederationRun, EveryReasonOfARoundIsInItsLine) {
    strategy_ = "fedasync";
    options_.rounds = 1;
    options_.limits.quarantine_after = 0;
    ASSERT_TRUE(open());
    all_say_hello();
    for (std::uint64_t lie = 0; lie < 20; ++lie) {
        UpdateSlice slice = announcement(tasks_.at("d"), trained("d", 0));
        tasks_.erase("d");
        if (lie % 2 == 0)
            slice.samples = 0;
        else
            slice.base_version = lie;
        upload("d", slice, "");
    }
    answer("a");
    std::string expected = "it claims 0 samples, expected 1 to 100";
    for (const int version : {1, 3, 5, 7, 9, 11, 13})
        expected += fmt::format("; it starts from version {}, expected 0", version);
    EXPECT_EQ(parse_json(rounds(), "rounds.jsonl")->at("rejected"), Json({{"d", expected}}));
}

TEST_F(FederationRun, ATaskOfAnotherIsCountedAgainstWhoSpeaksOfIt) {
    options_.rounds = 1;
    options_.limits.quarantine_after = 3;
    ASSERT_TRUE(open());
    all_say_hello();
    const auto speak = [&](std::uint64_t task) {
        UpdateSlice slice = announcement(tasks_.at("d"), trained("d", 0));
        slice.sequence = task;
        upload("d", slice, "");
        return federation_->view().sites[3];
    };
    const std::uint64_t others = tasks_.at("a").sequence;
    EXPECT_EQ(speak(others).rejections, 1U);
    EXPECT_EQ(speak(others).rejections, 1U) << "another slice of the same update";
    EXPECT_EQ(speak(1000).rejections, 2U);
    const SiteView third = speak(1001);
    EXPECT_TRUE(third.quarantined);
    EXPECT_EQ(third.task, 0U) << "the round waits for it";
    tasks_.erase("d");
    for (const char* name : {"a", "b", "c"}) answer(name);
    ASSERT_TRUE(federation_->finished());
    EXPECT_EQ(parse_json(rounds(), "rounds.jsonl")->at("rejected").at("d"),
              fmt::format("task {} is not this cluster's; task 1000 is not this cluster's; "
                          "task 1001 is not this cluster's",
                          others));
}

TEST_F(FederationRun, TheSameUpdateTwiceCountsOnce) {
    ASSERT_TRUE(open());
    all_say_hello();
    const Task task = tasks_.at("a");
    answer("a");
    const std::string bytes = trained("a", 0);
    upload("a", announcement(task, bytes), bytes);
    ASSERT_EQ(verdicts_["a"].size(), 2U);
    EXPECT_TRUE(verdicts_["a"][1].accepted);
    ASSERT_TRUE(open());  // also by a server that has it from its journal alone
    all_say_hello();
    upload("a", announcement(task, bytes), bytes);
    ASSERT_EQ(verdicts_["a"].size(), 3U);
    EXPECT_TRUE(verdicts_["a"][2].accepted);
    // Another cluster cannot speak for it.
    upload("b", announcement(task, bytes), bytes);
    EXPECT_FALSE(verdicts_["b"].back().accepted);
    answer("b");
    answer("c");
    answer("d");
    EXPECT_NE(rounds().find("\"samples\":400"), std::string::npos) << rounds();
}

TEST_F(FederationRun, ARepeatOffenderIsQuarantinedUntilTheOperatorAdmitsIt) {
    options_.rounds = 0;
    options_.limits.quarantine_after = 2;
    parameters_["min_clients"] = 2;
    ASSERT_TRUE(open());
    turn([&] { ASSERT_TRUE(federation_->hello({"d", 0, 100, {}}, 0)); });
    all_say_hello();
    const auto good_ones = [&] {
        for (const char* good : {"a", "b", "c"})
            if (tasks_.contains(good)) answer(good);
        turn();
    };
    for (int offence = 0; offence < 2; ++offence) {
        ASSERT_TRUE(tasks_.contains("d"));
        UpdateSlice slice = announcement(tasks_.at("d"), trained("d", 0));
        tasks_.erase("d");
        slice.samples = 0;
        upload("d", slice, "");
        good_ones();
    }
    EXPECT_FALSE(tasks_.contains("d"));
    EXPECT_TRUE(federation_->view().sites[3].quarantined);
    ASSERT_TRUE(open());  // remembered
    all_say_hello();
    EXPECT_FALSE(tasks_.contains("d"));
    turn([&] {
        EXPECT_FALSE(federation_->admit("a"));
        EXPECT_TRUE(federation_->admit("d"));
    });
    good_ones();
    EXPECT_TRUE(tasks_.contains("d"));
}

// A strategy gives a task as soon as one is free: the one who goes into quarantine must be gone
// before.
TEST_F(FederationRun, QuarantineLetsNoOtherTaskThrough) {
    for (const char* name : {"fedavg", "fedasync"}) {
        SCOPED_TRACE(name);
        fs::remove_all(directory_);
        tasks_.clear();
        verdicts_.clear();
        strategy_ = name;
        clusters_ = {"a", "d"};
        options_.rounds = 0;
        options_.limits.quarantine_after = 1;
        parameters_["min_clients"] = 1;
        ASSERT_TRUE(open());
        all_say_hello();
        UpdateSlice next;
        for (const std::string offender : {"a", "d"}) {  // the last of their rounds
            ASSERT_TRUE(tasks_.contains(offender));
            next.sequence = tasks_.at(offender).sequence + 1;
            next.epoch = tasks_.at(offender).epoch;
            UpdateSlice slice = announcement(tasks_.at(offender), trained(offender, 0));
            tasks_.erase(offender);
            slice.samples = 0;
            upload(offender, slice, "");
            EXPECT_FALSE(tasks_.contains(offender));
        }
        EXPECT_TRUE(tasks_.empty());
        for (const SiteView& site : federation_->view().sites) EXPECT_EQ(site.task, 0U);
        upload("d", next, "");
        EXPECT_EQ(verdicts_["d"].back().reason, "the cluster is in quarantine");
        turn([&] { ASSERT_TRUE(federation_->admit("d")); });
        turn();
        ASSERT_TRUE(tasks_.contains("d"));
        answer("d");
        EXPECT_TRUE(verdicts_["d"].back().accepted);
        EXPECT_EQ(federation_->version(), 1U);
    }
}

TEST_F(FederationRun, AnUpdateClaimsNoMoreSamplesThanItsClusterHas) {
    options_.rounds = 1;
    ASSERT_TRUE(open());
    all_say_hello();
    const auto claim = [&](const char* cluster, std::uint64_t samples) {
        const std::string bytes = trained(cluster, 0);
        UpdateSlice slice = announcement(tasks_.at(cluster), bytes);
        tasks_.erase(cluster);
        slice.samples = samples;
        upload(cluster, slice, bytes);
        return verdicts_[cluster].back().reason;
    };
    EXPECT_EQ(claim("b", 101), "it claims 101 samples, expected 1 to 100");
    EXPECT_EQ(claim("c", 100), "");
    turn([&] { ASSERT_TRUE(federation_->hello({"d", 0, 0, {}}, tasks_.at("d").sequence)); });
    EXPECT_EQ(claim("d", 101), "");
}

TEST_F(FederationRun, WhoHasFarMoreThanTheOthersCountsForTenTimesTheMedian) {
    options_.rounds = 2;
    options_.keep_updates = true;
    clusters_.insert("e");
    parameters_["min_clients"] = 5;
    const auto outcome = [&](std::uint64_t samples, double weight_max, bool restarts = false) {
        fs::remove_all(directory_);
        tasks_.clear();
        options_.limits.weight_max = weight_max;
        EXPECT_TRUE(open());
        const auto hello = [&](const std::set<std::string>& names) {
            turn([&] {
                for (const std::string& name : names)
                    ASSERT_TRUE(
                        federation_->hello({name, 0, name == "d" ? samples : 100, {}},
                                           tasks_.contains(name) ? tasks_.at(name).sequence : 0));
            });
        };
        hello(clusters_);
        for (int round = 0; round < 2; ++round)
            for (const std::string& name : clusters_) {
                if (restarts) {  // the others have not come back yet
                    EXPECT_TRUE(open());
                    hello({name});
                }
                const Task task = tasks_.at(name);
                tasks_.erase(name);
                const std::string bytes = trained(name, task.base_version);
                UpdateSlice slice = announcement(task, bytes);
                if (name == "d") slice.samples = samples;
                upload(name, slice, bytes);
                if (restarts) hello(clusters_);
            }
        EXPECT_TRUE(federation_->finished());
        return *federation_->global();
    };
    const std::string expected = outcome(1000, 0);
    EXPECT_TRUE(outcome(1000, 10) == expected);
    EXPECT_EQ(rounds().find("capped"), std::string::npos) << rounds();
    EXPECT_TRUE(outcome(1'000'000, 0) != expected);
    EXPECT_EQ(rounds().find("capped"), std::string::npos) << rounds();
    for (const bool restarts : {false, true}) {
        EXPECT_TRUE(outcome(1'000'000, 10, restarts) == expected);
        EXPECT_NE(rounds().find("\"samples\":1400"), std::string::npos) << rounds();
        EXPECT_NE(rounds().find(R"("capped":{"d":{"samples":1000000,"counted":1000}})"),
                  std::string::npos)
            << rounds();
        const auto replayed = replay_journal(options_.state_directory, directory_ / "replay");
        ASSERT_TRUE(replayed) << replayed.error().message;
        EXPECT_EQ(replayed->versions, 2U);
        EXPECT_EQ(replayed->different, 0U);
    }
}

// One site with 320 samples and one with 1: nobody has lied, and nothing is cut.
TEST_F(FederationRun, FewSitesCountForWhatTheyHave) {
    options_.rounds = 1;
    clusters_ = {"a", "b"};
    parameters_["min_clients"] = 2;
    ASSERT_TRUE(open());
    turn([&] {
        ASSERT_TRUE(federation_->hello({"a", 0, 320, {}}, 0));
        ASSERT_TRUE(federation_->hello({"b", 0, 1, {}}, 0));
    });
    for (const char* name : {"a", "b"}) {
        const Task task = tasks_.at(name);
        tasks_.erase(name);
        const std::string bytes = trained(name, 0);
        UpdateSlice slice = announcement(task, bytes);
        slice.samples = *name == 'a' ? 320 : 1;
        upload(name, slice, bytes);
    }
    ASSERT_TRUE(federation_->finished());
    const auto line = parse_json(rounds(), "rounds.jsonl");
    EXPECT_EQ(line->at("samples"), 321) << *line;
    EXPECT_FALSE(line->contains("capped")) << *line;
    const std::vector<float> a = floats_of(trained("a", 0));
    const std::vector<float> b = floats_of(trained("b", 0));
    const std::vector<float> made = floats_of(*federation_->global());
    for (std::size_t i = 0; i < made.size(); ++i)
        ASSERT_NEAR(made[i], (320 * a[i] + b[i]) / 321, 1e-6);
}

TEST(SamplesCap, IsTimesTheLowerMedianOfWhoTells) {
    EXPECT_EQ(samples_cap({5, 1000000, 7, 6, 8}, 10), 70U);
    EXPECT_EQ(samples_cap({5, 1000000, 6, 1000000, 7, 1000000}, 10), 70U);
    EXPECT_EQ(samples_cap({0, 0, 8, 8, 8, 8, 8}, 2.5), 20U);
    EXPECT_EQ(samples_cap({1, 1, 1, 1, 1}, 0.1), 1U);
    EXPECT_EQ(samples_cap({5, 6, 7, 8, 9}, 0), UINT64_MAX);
    EXPECT_EQ(samples_cap({UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}, 1e15),
              UINT64_MAX);
}

TEST(SamplesCap, IsNoneBelowFiveClusters) {
    EXPECT_EQ(samples_cap({}, 10), UINT64_MAX);
    EXPECT_EQ(samples_cap({320, 1}, 10), UINT64_MAX);
    EXPECT_EQ(samples_cap({320, 1, 1, 1}, 10), UINT64_MAX);
    EXPECT_EQ(samples_cap({320, 1, 1, 1, 0}, 10), UINT64_MAX) << "who tells nothing";
    EXPECT_EQ(samples_cap({320, 1, 1, 1, 1}, 10), 10U);
}

TEST_F(FederationRun, SlicesMakeAnUpdateOnlyWhenAllAreThere) {
    layout_ = ModelLayout::create({{"x", DType::kF32, {kElements / 2}, StateKind::kParameter, 0},
                                   {"y", DType::kF32, {kElements / 2}, StateKind::kParameter, 2}})
                  .value();
    options_.rounds = 1;
    clusters_ = {"a", "b"};
    parameters_["min_clients"] = 2;
    std::string whole;
    for (const bool sliced : {false, true}) {
        fs::remove_all(directory_);
        tasks_.clear();
        verdicts_.clear();
        ASSERT_TRUE(open());
        all_say_hello();
        const Task task = tasks_.at("a");
        tasks_.erase("a");
        const std::string bytes = trained("a", 0);
        if (!sliced) {
            UpdateSlice slice = announcement(task, bytes);
            slice.last_layer = 2;
            upload("a", slice, bytes);
        }
        for (const std::uint16_t part : {std::uint16_t{1}, std::uint16_t{0}}) {
            if (!sliced) break;
            EXPECT_TRUE(verdicts_["a"].empty());
            const std::string half = bytes.substr(part * bytes.size() / 2, bytes.size() / 2);
            UpdateSlice slice = announcement(task, half);
            slice.slice = part;
            slice.slices = 2;
            slice.first_layer = part == 0 ? 0 : 1;
            slice.last_layer = part == 0 ? 0 : 2;
            upload("a", slice, half);
        }
        ASSERT_EQ(verdicts_["a"].size(), 1U);
        EXPECT_TRUE(verdicts_["a"][0].accepted) << verdicts_["a"][0].reason;
        const Task other = tasks_.at("b");
        tasks_.erase("b");
        UpdateSlice slice = announcement(other, trained("b", 0));
        slice.last_layer = 2;
        upload("b", slice, trained("b", 0));
        ASSERT_TRUE(federation_->finished());
        if (sliced)
            EXPECT_TRUE(*federation_->global() == whole);
        else
            whole = *federation_->global();
    }
}

}  // namespace
}  // namespace ecopipe::test
