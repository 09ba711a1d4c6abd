// A federation's limits.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "core/sha256.h"
#include "core/strict_json.h"
#include "fl_server/numbers/samples_cap.h"
#include "fl_server/service/federation.h"
#include "fl_server/service/replay.h"
#include "fl_server/service/server_config.h"
#include "fl_server/strategies/registry.h"
#include "tests/fl_server/service/federation_run.h"
#include "tests/fl_server/service/toy_federation.h"

namespace ecopipe::test {
namespace {

namespace fs = std::filesystem;

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
        std::vector<float> values(kFederationElements);
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

}  // namespace
}  // namespace ecopipe::test
