#include "tests/support/scripted_cluster.h"

#include <cstring>

#include "core/command_line.h"
#include "core/files.h"
#include "core/random.h"

namespace ecopipe::test {
namespace {

constexpr double kPatienceS = 60;

}  // namespace

std::string formula(const Task& task, const std::string& cluster) {
    Rng rng(keyed_seed(task.base_version, cluster));
    std::string bytes(*flat_bytes(task.tensors), '\0');
    for (std::size_t at = 0; at + 4 <= bytes.size(); at += 4) {
        const auto value = static_cast<float>(rng.uniform(-0.02, 0.02));
        std::memcpy(bytes.data() + at, &value, 4);
    }
    return bytes;
}

OutgoingSlice whole_update(const Task& task, const std::string& bytes) {
    OutgoingSlice slice;
    slice.bytes = bytes.size();
    slice.announcement.base_version = task.base_version;
    slice.announcement.sequence = task.sequence;
    slice.announcement.epoch = task.epoch;
    slice.announcement.last_layer = 100;
    slice.announcement.samples = kScriptedSamples;
    slice.announcement.bytes = bytes.size();
    slice.announcement.sha256 = sha256_hex(bytes);
    return slice;
}

Result<Verdict> push(FederationLink& link, const OutgoingSlice& slice, const std::string& bytes) {
    return link.push_update({slice}, std::make_shared<const std::string>(bytes));
}

Result<void> live(const Endpoint& server, const std::string& name, const AnswerTask& answer) {
    NetLoop loop;
    FederationLink link(loop);
    ClusterHello hello;
    hello.cluster = name;
    hello.program_version = kVersion;
    hello.model = "lenet5";
    hello.instance = keyed_seed(1, name);
    hello.samples = kScriptedSamples;
    if (const auto welcome = link.join(server, "", hello, kPatienceS); !welcome)
        return tl::unexpected<Error>(welcome.error());
    link.set_patience(kPatienceS);
    for (;;) {
        ECOPIPE_ASSIGN_OR_RETURN(const auto task, link.next_task());
        if (!task) return {};
        ECOPIPE_ASSIGN_OR_RETURN(const auto model, link.pull_model(*task));
        if (!model) continue;
        ECOPIPE_RETURN_IF_ERROR(answer(link, *task));
    }
}

Result<bool> answer_honestly(FederationLink& link, const Task& task, const std::string& name) {
    const std::string bytes = formula(task, name);
    ECOPIPE_ASSIGN_OR_RETURN(const Verdict verdict, push(link, whole_update(task, bytes), bytes));
    if (verdict.reason == "the federation has ended") return false;
    if (!verdict.accepted) return fail(ExitCode::kRunFailed, verdict.reason);
    return true;
}

}  // namespace ecopipe::test
