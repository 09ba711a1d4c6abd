#pragma once
// A running server and scripted clusters.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <future>
#include <limits>
#include <set>
#include <thread>

#include "core/command_line.h"
#include "core/files.h"
#include "core/random.h"
#include "core/strict_json.h"
#include "tests/integration/training_fixture.h"
#include "tests/support/scripted_cluster.h"

namespace ecopipe::test {

inline constexpr double kServerDeadlineS = 60;

inline std::vector<Json> lines_of(const std::string& text) {
    std::vector<Json> lines;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        lines.push_back(Json::parse(text.substr(at, end - at)));
        at = end + 1;
    }
    return lines;
}

class FederationServer : public Training {
  protected:
    Endpoint server_{"127.0.0.1", static_cast<std::uint16_t>(free_port())};

    [[nodiscard]] Flags flags(const std::string& state, const std::string& min_clusters,
                              const Flags& more) const {
        Flags flags{"ecopipe-fl-server", "--bind", server_.text(),   "--model",   "lenet5",
                    "--state",           state,    "--min-clusters", min_clusters};
        flags.insert(flags.end(), more.begin(), more.end());
        return flags;
    }
    [[nodiscard]] std::thread cluster(const std::string& name, AnswerTask answer) const {
        return std::thread([server = server_, name, answer = std::move(answer)] {
            const auto lived = live(server, name, answer);
            EXPECT_TRUE(lived) << name << ": " << lived.error().message;
        });
    }
    [[nodiscard]] std::thread honest(const std::string& name) const {
        return cluster(name, [name](FederationLink& link, const Task& task) -> Result<void> {
            ECOPIPE_RETURN_IF_ERROR(answer_honestly(link, task, name));
            return {};
        });
    }
    // The global model that so many honest clusters make.
    std::string calm(const std::vector<std::string>& names, const std::string& rounds) {
        const std::string state = directory_ / "calm";
        Process server(flags(state, std::to_string(names.size()), {"--rounds", rounds}));
        std::vector<std::thread> clusters;
        for (const std::string& name : names) clusters.push_back(honest(name));
        const Finished ended = server.wait(kServerDeadlineS);
        EXPECT_EQ(ended.code, 0) << ended.err;
        for (std::thread& one : clusters) one.join();
        return read(state + "/model.safetensors");
    }
};

}  // namespace ecopipe::test
