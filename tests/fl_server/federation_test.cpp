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
#include "tests/fl_server/federation_run.h"
#include "tests/fl_server/toy_federation.h"

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

// A thousand clusters would be a thousand open files.
TEST_F(FederationRun, UpdatesAreClosedOnceTheyAreFoldedUnlessARobustRuleNeedsThem) {
    const auto open_updates = [&](bool keep_sources) {
        options_.keep_sources = keep_sources;
        fs::remove_all(directory_);
        tasks_.clear();
        EXPECT_TRUE(open());
        all_say_hello();
        for (const char* name : {"a", "b", "c"}) answer(name);
        std::size_t count = 0;
        for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
            std::error_code gone;  // the iterator's own descriptor
            const std::string target = fs::read_symlink(entry.path(), gone).string();
            if (target.starts_with(options_.state_directory + "/spool/")) ++count;
        }
        return count;
    };
    EXPECT_EQ(open_updates(true), 3U);
    EXPECT_EQ(open_updates(false), 0U);
    answer("d");
    EXPECT_EQ(federation_->version(), 1U);
}

TEST_F(FederationRun, ADiskWithoutRoomCostsNoUpdate) {
    options_.rounds = 1;
    ASSERT_TRUE(open());
    all_say_hello();
    run_to_end();
    const std::string expected = *federation_->global();
    fs::remove_all(directory_);
    tasks_.clear();
    verdicts_.clear();
    ASSERT_TRUE(open());
    all_say_hello();
    answer("a");
    const Task task = tasks_.at("b");
    const std::string bytes = trained("b", 0);
    const fs::path file =
        fs::path(options_.state_directory) / "spool" / (std::to_string(task.sequence) + ".0");
    fs::create_symlink("/dev/full", file);
    turn([&] {
        const auto announced = federation_->announce("b", announcement(task, bytes));
        ASSERT_TRUE(announced && *announced);
        const auto taken = federation_->chunk("b", {task.sequence, 0, 0},
                                              std::as_bytes(std::span(bytes)).first(40000));
        ASSERT_TRUE(taken) << taken.error().message;
        EXPECT_TRUE(taken->no_room);
    });
    EXPECT_FALSE(fs::is_symlink(file));  // no half of it stays
    EXPECT_TRUE(verdicts_["b"].empty());
    EXPECT_TRUE(verdicts_["a"][0].accepted);
    run_to_end();  // b announces again
    EXPECT_TRUE(*federation_->global() == expected);
    EXPECT_EQ(parse_json(rounds(), "rounds.jsonl")->at("rejected").size(), 0U);
}

TEST_F(FederationRun, ALowDiskCountsWhatIsStillToCome) {
    ASSERT_TRUE(open());
    all_say_hello();
    EXPECT_FALSE(federation_->disk_is_low());
    options_.limits.free_space_mib = std::uint64_t{1} << 40;
    ASSERT_TRUE(open());
    EXPECT_TRUE(federation_->disk_is_low());
    EXPECT_EQ(federation_->view().phase, "disk full");
}

TEST_F(FederationRun, TheBestModelByTheServersOwnDataStays) {
    std::vector<std::string> models;
    const std::vector<double> accuracies{0.5, 0.75, 0.25};
    options_.evaluate = [&](const std::string& flat) -> Result<Evaluation> {
        models.push_back(flat);
        return Evaluation{1, accuracies.at(models.size() - 1)};
    };
    ASSERT_TRUE(open());
    all_say_hello();
    run_to_end();
    ASSERT_EQ(models.size(), 3U);
    const std::string best =
        read_file(options_.state_directory + "/best.safetensors", 1U << 30U).value();
    EXPECT_TRUE(best.ends_with(models[1]));
    EXPECT_EQ(federation_->view().best_version, 2U);
    EXPECT_EQ(federation_->view().best_score, 0.75);
    EXPECT_NE(rounds().find("\"accuracy\":0.75"), std::string::npos) << rounds();
    const std::string last = rounds().substr(rounds().rfind("{\"round\""));
    EXPECT_EQ(parse_json(last, "rounds.jsonl")->at("best"), 2) << last;
}

// Clusters test the version that they receive: a round's line tells of the version before it.
TEST_F(FederationRun, TheBestModelByTheClustersDataStays) {
    clusters_ = {"a", "b"};
    parameters_["min_clients"] = 2;
    ASSERT_TRUE(open());
    all_say_hello();
    std::vector<std::string> models;
    while (!federation_->finished()) {
        models.push_back(*federation_->global());
        const double accuracy = models.size() == 2 ? 0.5 : 0.25;
        for (const std::string name : {"a", "b"}) {
            const Task task = tasks_.at(name);
            tasks_.erase(name);
            const std::string bytes = trained(name, task.base_version);
            UpdateSlice slice = announcement(task, bytes);
            slice.eval_samples = name == "a" ? 30 : 10;
            slice.eval_accuracy = name == "a" ? accuracy : 1;
            slice.eval_loss = 2;
            upload(name, slice, bytes);
        }
    }
    const std::string best =
        read_file(options_.state_directory + "/best.safetensors", 1U << 30U).value();
    EXPECT_TRUE(best.ends_with(models[1]));
    EXPECT_EQ(federation_->view().best_version, 1U);
    const std::string text = rounds();
    const auto first = parse_json(text.substr(0, text.find('\n')), "rounds.jsonl");
    EXPECT_EQ(first->at("client_accuracy"), (30 * 0.25 + 10) / 40);
    EXPECT_EQ(first->at("client_loss"), 2);
    EXPECT_EQ(first->at("clients").at("b").at("accuracy"), 1);
    EXPECT_EQ(first->at("clients").at("a").at("version"), 0);
}

// Each version goes to one cluster or two, and the sites' data are not equally hard.
TEST_F(FederationRun, UnderAnAsynchronousStrategyTheBestModelIsNotOneClustersWord) {
    strategy_ = "fedasync";
    options_.rounds = 0;
    clusters_ = {"easy", "hard", "middle"};
    parameters_["min_clients"] = 3;
    ASSERT_TRUE(open());
    all_say_hello();
    const auto best = [&] {
        return read_file(options_.state_directory + "/best.safetensors", 1U << 30U).value_or("");
    };
    const auto test = [&](const std::string& name, double accuracy) {
        const Task task = tasks_.at(name);
        tasks_.erase(name);
        const std::string bytes = trained(name, task.base_version);
        UpdateSlice slice = announcement(task, bytes);
        slice.eval_samples = 10;
        slice.eval_accuracy = accuracy;
        upload(name, slice, bytes);
        return task.base_version;
    };
    test("easy", 0.99);
    EXPECT_TRUE(best().empty()) << "one of three";
    EXPECT_EQ(federation_->view().best_score, -1);
    test("middle", 0.3);
    EXPECT_DOUBLE_EQ(federation_->view().best_score, (0.99 + 0.3) / 2);
    test("hard", 0.1);
    const std::uint64_t second = test("middle", 0.9);
    EXPECT_DOUBLE_EQ(federation_->view().best_score, (0.99 + 0.1 + 0.9) / 3);
    EXPECT_EQ(federation_->view().best_version, second);
    const std::string kept = best();
    EXPECT_FALSE(kept.empty());
    test("easy", 1);  // the highest that any has said, and no better in sum
    const auto reopened = open();
    ASSERT_TRUE(reopened) << reopened.error().message;
    turn([&] {
        for (const std::string& name : clusters_)
            ASSERT_TRUE(federation_->hello({name, 0, 100, {}},
                                           tasks_.contains(name) ? tasks_.at(name).sequence : 0));
    });
    test("hard", 0.05);
    EXPECT_DOUBLE_EQ(federation_->view().best_score, (1 + 0.1 + 0.9) / 3);
    test("middle", 0.5);
    EXPECT_DOUBLE_EQ(federation_->view().best_score, (1 + 0.1 + 0.9) / 3) << "a restart forgot";
    EXPECT_EQ(federation_->view().best_version, second) << "still the newest that was tested";
    EXPECT_TRUE(best() == kept);
    EXPECT_NE(rounds().find("\"best\":"), std::string::npos) << rounds();
}

TEST_F(FederationRun, WhoDoesNotTestIsNotWaitedForAndNobodyMeansNoBest) {
    clusters_ = {"a", "b", "c"};
    parameters_["min_clients"] = 3;
    options_.rounds = 1;
    for (const bool any : {true, false}) {
        SCOPED_TRACE(any);
        fs::remove_all(directory_);
        tasks_.clear();
        ASSERT_TRUE(open());
        turn([&] {
            for (const std::string& name : clusters_)
                ASSERT_TRUE(federation_->hello({name, 0, 100, {}}, 0, any && name == "a"));
        });
        for (const std::string& name : clusters_) {
            const Task task = tasks_.at(name);
            tasks_.erase(name);
            const std::string bytes = trained(name, 0);
            UpdateSlice slice = announcement(task, bytes);
            if (any && name == "a") {
                slice.eval_samples = 10;
                slice.eval_accuracy = 0.25;
            }
            upload(name, slice, bytes);
        }
        ASSERT_TRUE(federation_->finished());
        EXPECT_EQ(federation_->view().best_score, any ? 0.25 : -1);
        EXPECT_EQ(fs::exists(options_.state_directory + "/best.safetensors"), any);
        EXPECT_EQ(parse_json(rounds(), "rounds.jsonl")->contains("client_accuracy"), any);
    }
}

// The server's own data measure something else than the clusters' did.
TEST_F(FederationRun, AnotherMeasureChoosesTheBestAnew) {
    options_.rounds = 2;
    options_.evaluate = [](const std::string&) -> Result<Evaluation> { return Evaluation{1, 0.9}; };
    ASSERT_TRUE(open());
    all_say_hello();
    for (const char* name : {"a", "b", "c", "d"}) answer(name);
    EXPECT_EQ(federation_->view().best_score, 0.9);
    options_.evaluate = {};
    ASSERT_TRUE(open());
    EXPECT_EQ(federation_->view().best_score, -1);
}

TEST_F(FederationRun, WhatLabelsStandForOutlivesARestartAndMayNotChange) {
    const auto list = [](const std::vector<std::string>& names) {
        return ClassNames::of(names).value();
    };
    ASSERT_TRUE(open());
    EXPECT_FALSE(federation_->classes().known());
    turn([&] { ASSERT_TRUE(federation_->adopt_classes(list({"ant", "bee"}))); });
    for (const bool told : {false, true}) {
        options_.classes = told ? list({"ant", "bee"}) : ClassNames();
        const auto reopened = open();
        ASSERT_TRUE(reopened) << reopened.error().message;
        EXPECT_EQ(federation_->classes().names, (std::vector<std::string>{"ant", "bee"}));
    }
    options_.classes = list({"bee", "ant"});
    const auto other = open();
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, ExitCode::kUsage);
    EXPECT_NE(other.error().message.find("its classes are ant, bee, found bee, ant"),
              std::string::npos)
        << other.error().message;
    // What a first site kept to itself may be told later.
    fs::remove_all(directory_);
    options_.classes = {};
    ASSERT_TRUE(open());
    turn([&] { ASSERT_TRUE(federation_->adopt_classes({{}, classes_hash({"ant", "bee"})})); });
    options_.classes = list({"ant", "bee"});
    ASSERT_TRUE(open());
    options_.classes = {};
    ASSERT_TRUE(open());
    EXPECT_EQ(federation_->classes().names.size(), 2U);
}

// ---- `limits:`, each at its value and one past it (those of the server: federation_server_test)

class LimitsRun : public FederationRun {
  protected:
    // Opens a federation of a and b, gives a's answer with `change`, and returns why it was
    // refused.
    std::string refusal(const std::function<void(UpdateSlice&, std::string&)>& change) {
        fs::remove_all(directory_);
        tasks_.clear();
        verdicts_.clear();
        clusters_ = {"a", "b"};
        parameters_["min_clients"] = 2;
        EXPECT_TRUE(open());
        turn([&] {
            for (const std::string& name : clusters_)
                ASSERT_TRUE(federation_->hello({name, 0, samples_, {}}, 0));
        });
        const Task task = tasks_.at("a");
        tasks_.erase("a");
        std::string bytes = trained("a", 0);
        UpdateSlice slice = announcement(task, bytes);
        change(slice, bytes);
        slice.bytes = bytes.size();
        slice.sha256 = sha256_hex(bytes);
        upload("a", slice, bytes);
        return verdicts_["a"].empty() ? "not answered" : verdicts_["a"].back().reason;
    }
    // One weight apart from zero: the update's norm.
    static std::string with_norm(float norm) {
        std::vector<float> values(kElements);
        values[3] = norm;
        return *flat_floats(values);
    }
    std::uint64_t samples_ = 1000;
};

TEST_F(LimitsRun, NormMax) {
    options_.limits.norm_max = 8;
    EXPECT_EQ(refusal([&](auto&, std::string& bytes) { bytes = with_norm(8); }), "");
    EXPECT_EQ(refusal([&](auto&, std::string& bytes) { bytes = with_norm(8.001F); }),
              "its change has norm 8.001, expected at most 8");
}

TEST_F(LimitsRun, NormClip) {
    options_.limits.norm_clip = 8;
    options_.rounds = 1;
    for (const float norm : {8.0F, 16.0F}) {
        EXPECT_EQ(refusal([&](auto&, std::string& bytes) { bytes = with_norm(norm); }), "");
        const Task task = tasks_.at("b");
        tasks_.erase("b");
        const std::string bytes = with_norm(norm);
        upload("b", announcement(task, bytes), bytes);
        ASSERT_TRUE(federation_->finished());
        EXPECT_EQ(floats_of(*federation_->global())[3], 8.0F) << norm;
    }
}

TEST_F(LimitsRun, SamplesMax) {
    options_.limits.samples_max = 500;
    EXPECT_EQ(refusal([](UpdateSlice& slice, auto&) { slice.samples = 500; }), "");
    EXPECT_EQ(refusal([](UpdateSlice& slice, auto&) { slice.samples = 501; }),
              "it claims 501 samples, expected 1 to 500");
}

TEST_F(LimitsRun, SlicesMax) {
    options_.limits.slices_max = 3;
    const auto sliced = [&](std::uint16_t slices) {
        return refusal([&](UpdateSlice& slice, auto&) { slice.slices = slices; });
    };
    EXPECT_EQ(sliced(3).find("slices"), std::string::npos) << sliced(3);
    EXPECT_NE(sliced(4).find("at most 3"), std::string::npos) << sliced(4);
}

TEST_F(LimitsRun, StalenessMax) {
    strategy_ = "fedasync";
    options_.rounds = 0;
    options_.limits.staleness_max = 2;
    clusters_ = {"busy", "slow"};
    parameters_["min_clients"] = 2;
    for (const int behind : {2, 3}) {
        fs::remove_all(directory_);
        tasks_.clear();
        verdicts_.clear();
        ASSERT_TRUE(open());
        all_say_hello();
        for (int i = 0; i < behind; ++i) answer("busy");
        answer("slow");
        EXPECT_EQ(verdicts_["slow"].back().reason,
                  behind == 2 ? "" : "it is 3 versions old, expected at most 2");
    }
}

TEST_F(LimitsRun, QuarantineAfter) {
    options_.limits.quarantine_after = 2;
    refusal([](UpdateSlice& slice, auto&) { slice.samples = 0; });
    EXPECT_FALSE(federation_->view().sites[0].quarantined);
    UpdateSlice unknown = announcement(tasks_.at("b"), trained("a", 0));
    upload("a", unknown, "");
    EXPECT_TRUE(federation_->view().sites[0].quarantined);
    options_.limits.quarantine_after = 0;
    refusal([](UpdateSlice& slice, auto&) { slice.samples = 0; });
    for (int i = 0; i < 20; ++i) {
        unknown.sequence = 1000 + static_cast<std::uint64_t>(i);
        upload("a", unknown, "");
    }
    EXPECT_FALSE(federation_->view().sites[0].quarantined) << "0: never";
}

TEST_F(LimitsRun, WeightMax) {
    options_.limits.weight_max = 3;
    options_.rounds = 1;
    clusters_ = {"a", "b", "c", "d", "e"};
    parameters_["min_clients"] = 5;
    for (const std::uint64_t samples : {300U, 301U}) {
        fs::remove_all(directory_);
        tasks_.clear();
        ASSERT_TRUE(open());
        turn([&] {
            for (const std::string& name : clusters_)
                ASSERT_TRUE(federation_->hello({name, 0, name == "a" ? samples : 100, {}}, 0));
        });
        for (const std::string& name : clusters_) {
            const Task task = tasks_.at(name);
            tasks_.erase(name);
            UpdateSlice slice = announcement(task, trained(name, 0));
            if (name == "a") slice.samples = samples;
            upload(name, slice, trained(name, 0));
        }
        const auto line = parse_json(rounds(), "rounds.jsonl");
        EXPECT_EQ(line->at("samples"), 700) << *line;
        EXPECT_EQ(line->contains("capped"), samples > 300) << *line;
    }
}

// The disk is nobody's alone, so the limit moves and not what is free.
TEST_F(LimitsRun, FreeSpaceMib) {
    options_.limits.free_space_mib = 0;
    ASSERT_TRUE(open());
    EXPECT_FALSE(federation_->disk_is_low());
    const std::uint64_t free_mib = federation_->view().free_bytes >> 20U;
    constexpr std::uint64_t kOthersMib = 64;  // that other programs may take or free meanwhile
    ASSERT_GT(free_mib, kOthersMib);
    options_.limits.free_space_mib = free_mib - kOthersMib;
    ASSERT_TRUE(open());
    EXPECT_FALSE(federation_->disk_is_low());
    options_.limits.free_space_mib = free_mib + kOthersMib;
    ASSERT_TRUE(open());
    EXPECT_TRUE(federation_->disk_is_low());
}

TEST_F(FederationRun, WithoutANumberOfRoundsItGoesOnUntilToldToFinish) {
    options_.rounds = 0;
    ASSERT_TRUE(open());
    all_say_hello();
    for (int i = 0; i < 7 * 4; ++i) answer(tasks_.begin()->first);
    EXPECT_EQ(federation_->version(), 7U);
    EXPECT_FALSE(federation_->finished());
    answer(tasks_.begin()->first);
    turn([&] { ASSERT_TRUE(federation_->finish()); });
    EXPECT_FALSE(federation_->finished());  // the round at hand is open
    run_to_end();
    EXPECT_EQ(federation_->version(), 8U);
}

TEST_F(FederationRun, ReplayReproducesEveryHashOfAnAsynchronousRun) {
    for (const char* name : {"fedasync", "fedbuff", "fedat", "fedadam", "eco-fl"}) {
        SCOPED_TRACE(name);
        fs::remove_all(directory_);
        tasks_.clear();
        strategy_ = name;
        options_.rounds = 25;
        options_.keep_updates = true;
        ASSERT_TRUE(open());
        all_say_hello();
        Rng rng(9);
        for (int i = 0; i < 3000 && !federation_->finished(); ++i) {
            if (i % 7 == 3) {
                const auto reopened = open();
                ASSERT_TRUE(reopened) << reopened.error().message;
                turn([&] {
                    for (const std::string& n : clusters_)
                        ASSERT_TRUE(federation_->hello(
                            {n, 0, 100, {}}, tasks_.contains(n) ? tasks_.at(n).sequence : 0));
                });
            }
            turn();
            if (tasks_.empty()) continue;
            auto chosen = tasks_.begin();
            std::advance(chosen, static_cast<std::ptrdiff_t>(rng.below(tasks_.size())));
            answer(chosen->first);
        }
        ASSERT_TRUE(federation_->finished());
        const auto outcome = replay_journal(options_.state_directory, directory_ / "replay");
        ASSERT_TRUE(outcome) << outcome.error().message;
        EXPECT_EQ(outcome->versions, 25U);
        EXPECT_EQ(outcome->different, 0U);
        EXPECT_GE(outcome->updates, 20U);
    }
}

TEST_F(FederationRun, WhatAStrategyServesIsTestedAndPublishedInPlaceOfTheGlobalModel) {
    strategy_ = "eco-fl";
    options_.rounds = 6;
    std::vector<std::string> tested;
    options_.evaluate = [&](const std::string& flat) -> Result<Evaluation> {
        tested.push_back(flat);
        return Evaluation{1.0, tested.size() == 4 ? 0.9 : 0.1};
    };
    const auto published = [&](const char* name) {
        const std::string file =
            read_file(options_.state_directory + "/" + name + ".safetensors", 1U << 30U).value();
        return file.substr(file.size() - kElements * sizeof(float));
    };
    ASSERT_TRUE(open());
    all_say_hello();
    run_to_end();
    ASSERT_GE(tested.size(), 6U);
    EXPECT_NE(tested.back(), *federation_->global());
    EXPECT_EQ(published("model"), tested.back());
    EXPECT_EQ(published("best"), tested[3]);
    fs::remove(options_.state_directory + "/model.safetensors");
    ASSERT_TRUE(open());
    EXPECT_EQ(published("model"), tested.back());
}

TEST_F(FederationRun, AThousandRoundsDoNotFillTheDisk) {
    options_.rounds = 1000;
    options_.keep_models = 2;
    clusters_ = {"a", "b"};
    parameters_["min_clients"] = 2;
    ASSERT_TRUE(open());
    all_say_hello();
    const auto used = [&](const char* part) {
        std::uintmax_t bytes = 0;
        for (const auto& entry : fs::directory_iterator(fs::path(options_.state_directory) / part))
            if (entry.is_regular_file()) bytes += entry.file_size();
        return bytes;
    };
    std::uintmax_t journal_at_500 = 0;
    for (int i = 0; i < 10000 && !federation_->finished(); ++i) {
        if (tasks_.empty())
            turn();
        else
            answer(tasks_.begin()->first);
        if (federation_->version() == 500)
            journal_at_500 = fs::file_size(options_.state_directory + "/journal.sqlite");
    }
    ASSERT_TRUE(federation_->finished());
    const std::vector<RoundView> recent = federation_->view().recent;
    ASSERT_EQ(recent.size(), 100U);
    EXPECT_EQ(recent.front().round, 901U);
    EXPECT_EQ(recent.back().round, 1000U);
    const auto model = static_cast<std::uintmax_t>(kElements) * 4;
    EXPECT_LE(used("models"), 4 * (model + 1000));
    EXPECT_EQ(used("spool"), 0U);
    const auto journal = fs::file_size(options_.state_directory + "/journal.sqlite");
    // Metadata stays: some hundred bytes an update and a version.
    EXPECT_LT(journal - journal_at_500, 500U * 2500U);
    EXPECT_LT(journal, 1000U * 2500U + (1U << 20U));
}

TEST_F(FederationRun, ABackupGoesOnAsTheOriginal) {
    double accuracy = 0.9;  // the first version is the best
    options_.evaluate = [&](const std::string&) -> Result<Evaluation> {
        return Evaluation{1, std::exchange(accuracy, 0.1)};
    };
    ASSERT_TRUE(open());
    ASSERT_TRUE(federation_->backup_to(directory_ / "empty"));  // there is no best one yet
    all_say_hello();
    for (const char* name : {"a", "b", "c", "d"}) answer(name);
    ASSERT_EQ(federation_->version(), 1U);
    const auto best = [&] {
        return read_file(options_.state_directory + "/best.safetensors", 1U << 30U).value_or("");
    };
    const std::string expected_best = best();
    ASSERT_FALSE(expected_best.empty());
    answer("a");
    answer("b");
    ASSERT_TRUE(federation_->backup_to(directory_ / "backup"));
    EXPECT_FALSE(federation_->backup_to(directory_ / "backup"));  // not empty
    run_to_end();
    const std::string expected = *federation_->global();
    options_.state_directory = directory_ / "backup";
    const auto restored = open();
    ASSERT_TRUE(restored) << restored.error().message;
    all_say_hello();
    EXPECT_EQ(tasks_.size(), 2U) << "c and d have theirs";
    run_to_end();
    EXPECT_TRUE(*federation_->global() == expected);
    EXPECT_EQ(federation_->view().best_version, 1U);
    EXPECT_TRUE(best() == expected_best);
}

TEST_F(FederationRun, ARestartKnowsWhichModelWasTheBest) {
    double accuracy = 0.9;
    options_.evaluate = [&](const std::string&) -> Result<Evaluation> {
        return Evaluation{1, std::exchange(accuracy, 0.1)};
    };
    ASSERT_TRUE(open());
    all_say_hello();
    for (const char* name : {"a", "b", "c", "d"}) answer(name);
    ASSERT_EQ(federation_->version(), 1U);
    ASSERT_TRUE(open());
    EXPECT_EQ(federation_->view().best_version, 1U);
    all_say_hello();
    run_to_end();
    EXPECT_EQ(federation_->view().best_version, 1U);
    EXPECT_EQ(federation_->view().best_score, 0.9);
}

TEST_F(FederationRun, StatesOfOthersAndNewerJournalsAreRefused) {
    ASSERT_TRUE(open());
    options_.identity["norm_clip"] = "5";
    const auto other = open();
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, ExitCode::kUsage);
    EXPECT_NE(other.error().message.find("norm_clip is 100, found 5"), std::string::npos);
    // By the name of whatever differs, the robust rule too.
    options_.identity["norm_clip"] = "100";
    fs::remove_all(directory_);
    StrategySettings settings = default_settings("fedavg").value();
    const auto open_with = [&](RobustSettings robust) {
        settings.robust = robust;
        options_.identity = identity_of(settings, options_.limits).value();
        const auto opened = open();
        return opened ? std::string() : opened.error().message;
    };
    RobustSettings robust;
    EXPECT_EQ(open_with(robust), "");
    robust.rule = Combine::Rule::kCoordinateMedian;
    EXPECT_NE(open_with(robust).find("its robust is none, found median (trim 0.2, "),
              std::string::npos);
    fs::remove_all(directory_);
    EXPECT_EQ(open_with(robust), "");
    robust.keep = 7;
    EXPECT_NE(open_with(robust).find("keep 0), found median (trim 0.2, byzantine 1, keep 7)"),
              std::string::npos);
    robust.keep = 0;
    EXPECT_EQ(open_with(robust), "");
    {
        Database database = Database::open(options_.state_directory + "/journal.sqlite").value();
        ASSERT_TRUE(database.execute("PRAGMA user_version = 99"));
    }
    const auto newer = open();
    ASSERT_FALSE(newer);
    EXPECT_EQ(newer.error().code, ExitCode::kMismatch);
}

// The clusters come back after a restart, each with its task.
TEST_F(FederationRun, ADeadlineThatARestartChangesHoldsForTheRoundAtHand) {
    options_.rounds = 1;
    parameters_["deadline_s"] = 1000.0;
    ASSERT_TRUE(open());
    all_say_hello();
    for (const char* name : {"a", "b", "c"}) answer(name);
    turn();
    EXPECT_EQ(federation_->version(), 0U);
    parameters_["deadline_s"] = 0.2;
    const auto reopened = open();
    ASSERT_TRUE(reopened) << reopened.error().message;
    turn();
    EXPECT_EQ(federation_->version(), 1U);
    EXPECT_EQ(parse_json(rounds(), "rounds.jsonl")->at("clusters"), Json::array({"a", "b", "c"}));
}

TEST_F(FederationRun, WhatCameBeforeARestartIsToldToTheSettingsOfBefore) {
    for (const char* name : {"fedavg", "fedasync", "tifl"}) {
        SCOPED_TRACE(name);
        fs::remove_all(directory_);
        tasks_.clear();
        strategy_ = name;
        options_.rounds = 0;
        parameters_["min_clients"] = 4;
        ASSERT_TRUE(open());
        all_say_hello();
        ASSERT_EQ(tasks_.size(), 4U);
        const auto open_tasks = [&] {
            std::map<std::string, std::uint64_t> open;
            for (const SiteView& site : federation_->view().sites) open[site.cluster] = site.task;
            return open;
        };
        const auto before = open_tasks();
        parameters_["min_clients"] = 100;
        for (int time = 0; time < 2; ++time) {  // the second with nothing to change any more
            const auto reopened = open();
            ASSERT_TRUE(reopened) << reopened.error().message;
            EXPECT_EQ(open_tasks(), before);
        }
        const auto held = tasks_;
        tasks_.clear();
        turn([&] {
            for (const std::string& one : clusters_)
                ASSERT_TRUE(federation_->hello({one, 0, 100, {}}, held.at(one).sequence));
        });
        tasks_ = held;
        for (const std::string& one : clusters_) answer(one);
        turn();
        EXPECT_GE(federation_->version(), 1U);
        EXPECT_TRUE(tasks_.empty()) << "a round starts with 4 of 100";
    }
}

TEST_F(FederationRun, SettingsInTheJournalThatAreNoneAreRefused) {
    ASSERT_TRUE(open());
    {
        Database database = Database::open(options_.state_directory + "/journal.sqlite").value();
        ASSERT_TRUE(database.execute(
            R"(UPDATE meta SET value = '{"min_clients": "many"}' WHERE key = 'changeable')"));
    }
    const auto reopened = open();
    ASSERT_FALSE(reopened);
    EXPECT_EQ(reopened.error().code, ExitCode::kBadFile);
    EXPECT_NE(reopened.error().message.find("min_clients cannot be \"many\""), std::string::npos)
        << reopened.error().message;
}

TEST_F(FederationRun, PausedItGivesNoTasksAndItsDeadlineWaits) {
    options_.rounds = 1;
    ASSERT_TRUE(open());
    turn([&] { ASSERT_TRUE(federation_->pause(true)); });
    all_say_hello();
    EXPECT_TRUE(tasks_.empty());
    now_s_ += 1000;
    turn();
    EXPECT_EQ(federation_->version(), 0U);
    turn([&] { ASSERT_TRUE(federation_->pause(false)); });
    EXPECT_EQ(tasks_.size(), 4U);
    run_to_end();
}

}  // namespace
}  // namespace ecopipe::test
