#include "tests/integration/training_fixture.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/files.h"

namespace ecopipe::test {

std::string hand_plan(const ModelCase& model, int stages, const std::string& schedule, int batch,
                      int micro_batches, bool recompute) {
    std::vector<int> first_layers;
    for (int s = 0; s < stages; ++s) first_layers.push_back(s * model.layers / stages);
    return hand_plan(model, first_layers, schedule, batch, micro_batches, recompute);
}

std::string hand_plan(const ModelCase& model, const std::vector<int>& first_layers,
                      const std::string& schedule, int batch, int micro_batches, bool recompute) {
    std::string list;
    const int stages = static_cast<int>(first_layers.size());
    for (int s = 0; s < stages; ++s) {
        const int first = first_layers[static_cast<std::size_t>(s)];
        const int last =
            (s + 1 < stages ? first_layers[static_cast<std::size_t>(s) + 1] : model.layers) - 1;
        const int in_flight =
            schedule == "gpipe" ? micro_batches : std::min(micro_batches, 2 * (stages - s) - 1);
        list += fmt::format(
            R"({}{{"device":"d{}","first_layer":{},"last_layer":{},"in_flight":{},"recompute":{}}})",
            s > 0 ? "," : "", s, first, last, in_flight, recompute);
    }
    return fmt::format(
        R"({{"schema":"ecopipe.plan/1","model":"{}","batch":{},"micro_batches":{},"schedule":"{}","stages":[{}]}})",
        model.id, batch, micro_batches, schedule, list);
}

std::string with_segments(const std::string& plan) {
    auto json = nlohmann::ordered_json::parse(plan);
    for (auto& stage : json["stages"]) {
        const int first = stage["first_layer"];
        const int last = stage["last_layer"];
        stage["recompute"] = true;
        const auto add = [&](int from, int to) {
            if (from <= last)
                stage["recompute_layers"].push_back(
                    {{"first_layer", from}, {"last_layer", std::min(to, last)}});
        };
        for (int layer = first + 1; layer <= last; layer += 3) {
            const bool one = (layer - first) % 2 == 1;
            add(layer, one ? layer + 1 : layer);
            if (!one) add(layer + 1, layer + 1);
        }
    }
    return json.dump();
}

void expect_trains(std::vector<std::string> flags) {
    flags.insert(flags.begin(),
                 {"ecopipe-train", "--quiet", "--no-evaluation", "--log-level", "warn"});
    const Finished finished = run(flags, 240);
    ASSERT_EQ(finished.code, 0) << finished.err;
}

void kill_when_under_way(Process& train, const std::string& out, const std::string& device) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    const std::string metrics = out + "/metrics.jsonl";
    const auto reached = [&] {
        const std::string lines = exists(metrics) ? read(metrics) : "";
        return std::count(lines.begin(), lines.end(), '\n') >= 8;
    };
    while (!reached()) {
        ASSERT_LT(std::chrono::steady_clock::now(), deadline) << train.err();
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    for (const pid_t child : children_of(train.pid())) {
        std::string line = read("/proc/" + std::to_string(child) + "/cmdline");
        std::replace(line.begin(), line.end(), '\0', ' ');
        if (line.find("--name " + device + " ") != std::string::npos) ::kill(child, SIGKILL);
    }
}

std::string Training::single(const ModelCase& model, const std::vector<std::string>& flags,
                             const std::string& name) {
    std::vector<std::string> all{"--single", "--model", model.model, "--out", directory_ / name};
    all.insert(all.end(), flags.begin(), flags.end());
    expect_trains(all);
    return read(directory_ / (name + "/model.safetensors"));
}

std::string Training::local(const ModelCase& model, const std::string& plan,
                            const std::vector<std::string>& flags, const std::string& name) {
    write(directory_ / (name + ".plan.json"), plan);
    std::vector<std::string> all{"--local",        "--plan",    directory_ / (name + ".plan.json"),
                                 "--model",        model.model, "--out",
                                 directory_ / name};
    for (std::size_t i = 0; i < flags.size(); ++i) {
        if (flags[i] == "--batch" || flags[i] == "--micro-batches") {
            ++i;  // the plan says it
        } else {
            all.push_back(flags[i]);
        }
    }
    expect_trains(all);
    return read(directory_ / (name + "/model.safetensors"));
}

ModelCase Training::torchscript(const std::string& name, int layers) {
    const std::string path = directory_ / (name + ".pt");
    if (!exists(path)) {
        const Finished made = run(
            {kPython, std::string(ECOPIPE_SOURCE_DIR) + "/tests/integration/reference/models.py",
             directory_.path()});
        EXPECT_EQ(made.code, 0) << made.err;
    }
    return {path, "sha256:" + sha256_hex(read(path)), layers};
}

}  // namespace ecopipe::test
