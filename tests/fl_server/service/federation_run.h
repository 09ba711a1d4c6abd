#pragma once
// A federation without sockets, for tests.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/files.h"
#include "core/random.h"
#include "core/sha256.h"
#include "fl_server/service/federation.h"
#include "fl_server/service/server_config.h"
#include "fl_server/strategies/registry.h"
#include "tests/fl_server/service/toy_federation.h"

namespace ecopipe::test {

inline constexpr std::int64_t kFederationElements = 30000;

// Clusters answer their tasks as soon as they get them, and the
// federation is thrown away and opened again whenever a test says so.
class FederationRun : public ::testing::Test {
  protected:
    void SetUp() override {
        directory_ = std::filesystem::temp_directory_path() /
                     ("ecopipe_federation_" +
                      std::to_string(::testing::UnitTest::GetInstance()->random_seed()) + "_" +
                      ::testing::UnitTest::GetInstance()->current_test_info()->name() + "_" +
                      std::to_string(::getpid()));
        std::filesystem::remove_all(directory_);
        options_.state_directory = directory_ / "state";
        options_.now_s = [this] { return now_s_ - base_s_; };
        options_.rounds = 3;
        options_.limits.free_space_mib = 0;
        options_.identity["norm_clip"] = "100";
        for (const char* name : {"a", "b", "c", "d"}) clusters_.insert(name);
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    StrategySettings settings() const {
        StrategySettings settings = default_settings(strategy_).value();
        for (const auto& [key, value] : parameters_)
            if (settings.parameters.has(key)) settings.parameters.set(key, value);
        return settings;
    }
    Result<void> open() {
        federation_.reset();
        base_s_ = now_s_;  // the clock of another process
        options_.changeable = changeable_of(settings()).value();
        options_.strategy_under = [now = settings()](const std::string& changeable) {
            return strategy_under(now, changeable);
        };
        auto opened = Federation::open(
            options_, layout_, std::string(static_cast<std::size_t>(kFederationElements) * 4, '\0'),
            make_strategy(settings()).value());
        if (!opened) return tl::unexpected<Error>(opened.error());
        federation_ = std::move(*opened);
        return {};
    }
    void turn(const std::function<void()>& work = [] {}) {
        ASSERT_TRUE(federation_->begin_turn());
        work();
        ASSERT_TRUE(federation_->tick());
        const auto ended = federation_->end_turn();
        ASSERT_TRUE(ended) << ended.error().message;
        for (const Outgoing& out : federation_->take_outgoing()) {
            if (const auto* task = std::get_if<outgoing::SendTask>(&out))
                tasks_[task->cluster] = task->task;
            if (const auto* verdict = std::get_if<outgoing::SendVerdict>(&out))
                verdicts_[verdict->cluster].push_back(verdict->verdict);
        }
        now_s_ += 0.1;
    }
    void all_say_hello() {
        turn([&] {
            for (const std::string& name : clusters_)
                ASSERT_TRUE(federation_->hello({name, 0, 100, {}}, 0));
        });
    }

    // What a cluster trains: a function of its name and the version, as training is.
    std::string trained(const std::string& cluster, std::uint64_t version) const {
        Rng rng(keyed_seed(version, cluster));
        std::vector<float> values(kFederationElements);
        for (float& v : values) v = static_cast<float>(rng.normal() * 0.01);
        return *flat_floats(values);
    }
    UpdateSlice announcement(const Task& task, const std::string& bytes) const {
        UpdateSlice slice;
        slice.base_version = task.base_version;
        slice.sequence = task.sequence;
        slice.epoch = task.epoch;
        slice.samples = 100;
        slice.bytes = bytes.size();
        slice.sha256 = sha256_hex(bytes);
        return slice;
    }
    // Announces and sends; false when the announcement was answered at once.
    void upload(const std::string& cluster, const UpdateSlice& slice, const std::string& bytes,
                std::size_t share = 1) {
        turn([&] {
            const auto announced = federation_->announce(cluster, slice);
            ASSERT_TRUE(announced) << announced.error().message;
            if (!*announced) return;
            const std::size_t end = bytes.size() / share;
            for (std::size_t at = (*announced)->offset; at < end;) {
                const std::size_t part = std::min<std::size_t>(40000, end - at);
                const auto taken =
                    federation_->chunk(cluster, {slice.sequence, slice.slice, at},
                                       std::as_bytes(std::span(bytes)).subspan(at, part));
                ASSERT_TRUE(taken) << taken.error().message;
                at += part;
                if (taken->over) break;
            }
        });
    }
    void answer(const std::string cluster) {  // a copy: the caller may pass a key of tasks_
        const Task task = tasks_.at(cluster);
        tasks_.erase(cluster);
        const std::string bytes = trained(cluster, task.base_version);
        upload(cluster, announcement(task, bytes), bytes);
    }
    void run_to_end() {
        for (int i = 0; i < 10000 && !federation_->finished(); ++i) {
            if (tasks_.empty())
                turn();
            else
                answer(tasks_.begin()->first);
        }
        ASSERT_TRUE(federation_->finished());
    }
    std::string rounds() const {
        return read_file(options_.state_directory + "/rounds.jsonl", 1U << 30U).value();
    }

    std::filesystem::path directory_;
    FederationOptions options_;
    std::string strategy_ = "fedavg";
    std::map<std::string, Json> parameters_{{"min_clients", 4}, {"deadline_s", 5.0}};
    ModelLayout layout_ = vector_layout(kFederationElements);
    std::unique_ptr<Federation> federation_;
    std::set<std::string> clusters_;
    std::map<std::string, Task> tasks_;
    std::map<std::string, std::vector<Verdict>> verdicts_;
    double now_s_ = 0;
    double base_s_ = 0;
};

}  // namespace ecopipe::test
