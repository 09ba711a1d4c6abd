#pragma once
// A federation's cluster that speaks the protocol as ecopipe-train does, and trains by a formula
// instead of torch.

#include <functional>
#include <memory>
#include <string>

#include "fl_server/client/federation_link.h"

namespace ecopipe::test {

inline constexpr std::uint64_t kScriptedSamples = 100;

// What a cluster "trains": a function of its name and the version, each weight within 0.02.
[[nodiscard]] std::string formula(const Task& task, const std::string& cluster);
// `bytes` as one slice.
[[nodiscard]] OutgoingSlice whole_update(const Task& task, const std::string& bytes);
[[nodiscard]] Result<Verdict> push(FederationLink& link, const OutgoingSlice& slice,
                                   const std::string& bytes);

// Joins a federation of lenet5, and pulls the model and calls `answer` for each task until the
// federation ends. Errors: what the link or `answer` fails with.
using AnswerTask = std::function<Result<void>(FederationLink&, const Task&)>;
[[nodiscard]] Result<void> live(const Endpoint& server, const std::string& name,
                                const AnswerTask& answer);

// Pushes the formula's update; an error when it is rejected, false when the federation has ended.
[[nodiscard]] Result<bool> answer_honestly(FederationLink& link, const Task& task,
                                           const std::string& name);

}  // namespace ecopipe::test
