#pragma once
// A training of 60 steps whose devices are harmed, and what must be left of it all the same.

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <thread>

#include "tests/integration/training_fixture.h"

namespace ecopipe::test {

inline constexpr double kSurvivalDeadlineS = 120;

class Survival : public Training {
  protected:
    const ModelCase model_{"lenet5", "lenet5", 12};
    Flags flags(const std::string& steps = "60") const {
        return {"--data",          "fashion-mnist",
                "--data-limit",    "500",
                "--steps",         steps,
                "--batch",         "50",
                "--micro-batches", "4",
                "--seed",          "5"};
    }

    std::string cluster(int devices, double speed = 0.5, const std::string& profile = "") {
        std::string text = "name: home\nportal: d0\nportal_address: 127.0.0.1\ndevices:\n";
        for (int d = 0; d < devices; ++d)
            text += "  - {name: d" + std::to_string(d) + ", memory_mib: 1024, " +
                    (profile.empty() ? "speed: " + std::to_string(speed) : "profile: " + profile) +
                    "}\n";
        write(directory_ / "cluster.yaml", text + "default_link: {mbps: 1000, latency_ms: 0.1}\n");
        return directory_ / "cluster.yaml";
    }

    // Every device holds layers, whatever this machine does beside: for tests that name a victim.
    std::string cluster_of_stages(int devices) { return cluster(devices, 1, even_profile()); }

    // The model's sizes as they are, and times that no moment of this machine decides.
    std::string even_profile() {
        const std::string path = directory_ / "profile.json";
        const Finished profiled =
            run({"ecopipe-profile", "--model", "lenet5", "--data", "fashion-mnist", "--micro-batch",
                 "13", "--seconds", "0.01", "--out", path});
        EXPECT_EQ(profiled.code, 0) << profiled.err;
        std::string text = read(path);
        for (const auto& [key, ms] : {std::pair("forward_ms", "1"),
                                      {"backward_ms", "2"},
                                      {"input_gradient_ms", "1"},
                                      {"weight_gradient_ms", "1"}})
            text = std::regex_replace(text, std::regex("\"" + std::string(key) + "\": [0-9.e-]+"),
                                      "\"" + std::string(key) + "\": " + ms);
        write(path, text);
        return "profile.json";
    }

    std::unique_ptr<Process> start(const std::string& name, Flags more,
                                   const std::string& steps = "60") {
        Flags all{"ecopipe-train", "--model", "lenet5",         "--no-evaluation",
                  "--quiet",       "--out",   directory_ / name};
        for (Flags* part : {&more})
            for (std::string& flag : *part) all.push_back(flag);
        const bool planned = std::find(all.begin(), all.end(), "--plan") != all.end();
        const Flags common = flags(steps);
        for (std::size_t i = 0; i < common.size(); ++i) {
            if (planned && (common[i] == "--batch" || common[i] == "--micro-batches")) {
                ++i;
            } else {
                all.push_back(common[i]);
            }
        }
        return std::make_unique<Process>(std::move(all));
    }

    [[nodiscard]] std::string metrics(const std::string& name) const {
        return read(directory_ / (name + "/metrics.jsonl"));
    }
    [[nodiscard]] long steps_in(const std::string& name) const {
        const std::string text = metrics(name);
        long count = 0;
        for (std::size_t at = 0; (at = text.find("{\"step\":", at)) != std::string::npos; ++at)
            ++count;
        return count;
    }
    // Waits until that many steps are recorded.
    void reach(const std::string& name, long steps, const Process& train) const {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (steps_in(name) < steps) {
            ASSERT_LT(std::chrono::steady_clock::now(), deadline) << train.err();
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    }
    static pid_t stage_of(const Process& train, const std::string& device) {
        for (const pid_t child : children_of(train.pid())) {
            std::string line = read("/proc/" + std::to_string(child) + "/cmdline");
            std::replace(line.begin(), line.end(), '\0', ' ');
            if (line.find("--name " + device + " ") != std::string::npos) return child;
        }
        ADD_FAILURE() << "no stage " << device;
        return -1;
    }
    // It ended by itself with every step once and in order, and with the same bytes.
    void expect_survived(const std::string& name, Process& train, long steps = 60) {
        const Finished finished = train.wait(kSurvivalDeadlineS);
        ASSERT_EQ(finished.code, 0) << finished.err;
        expect_whole(name, steps);
        EXPECT_TRUE(read(directory_ / (name + "/model.safetensors")) == reference(steps))
            << name << "\n"
            << finished.err;
        EXPECT_TRUE(children_of(train.pid()).empty());
    }
    void expect_whole(const std::string& name, long steps) const {
        std::istringstream lines(metrics(name));
        long next = 1;
        for (std::string line; std::getline(lines, line);) {
            if (!line.starts_with("{\"step\":")) continue;
            ASSERT_TRUE(line.starts_with("{\"step\":" + std::to_string(next) + ",")) << line;
            ++next;
        }
        EXPECT_EQ(next - 1, steps);
    }
    const std::string& reference(long steps = 60) {
        std::string& bytes = references_[steps];
        if (bytes.empty())
            bytes =
                single(model_, flags(std::to_string(steps)), "reference" + std::to_string(steps));
        return bytes;
    }
    std::map<long, std::string> references_;
};

}  // namespace ecopipe::test
