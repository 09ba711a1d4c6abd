// Graphs with something changed in them, trained: whatever a file says, a model is refused in one
// line or it runs. Each runs in a process with an address space that no honest one needs.
#include <ATen/core/dispatch/Dispatcher.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <limits>
#include <new>

#include "core/files.h"
#include "core/random.h"
#include "core/strict_json.h"
#include "stage_runtime/engine/model/graph/operators.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/executor.h"

namespace ecopipe {
namespace {

constexpr std::uint64_t kChunk = 500;  // graphs a process
constexpr rlim_t kAddressSpace = 3ULL << 30;
constexpr unsigned kSecondsMax = 200;  // of a process

// Mostly one that fits somewhere.
std::int64_t any_integer(Rng& rng) {
    if (rng.below(3) != 0) return static_cast<std::int64_t>(rng.below(12)) - 3;
    if (rng.below(4) == 0) return std::numeric_limits<std::int64_t>::max();
    const std::int64_t power = std::int64_t{1} << rng.below(48);
    return rng.below(2) == 0 ? power : -power;
}

// What the parent sees of a process that ends early.
struct Progress {
    std::atomic<std::uint64_t> seed;
    std::atomic<std::uint64_t> trained;
    std::atomic<std::uint64_t> refused;
};

// All places of a document, the root last.
void collect(Json& json, std::vector<Json*>& places) {
    if (json.is_structured())
        for (auto& child : json) collect(child, places);
    places.push_back(&json);
}

Json other_literal(const Json& old, const std::vector<Json*>& places, Rng& rng) {
    if (old.is_string() && rng.below(2) == 0) {
        const auto& names = graph_operators();
        return std::string(names[rng.below(names.size())]);
    }
    if (old.is_number() && rng.below(4) != 0) {
        if (old.is_number_float() && rng.below(2) == 0)
            return std::vector<double>{0.0, -1.0, 1e300, -1e-300, 0.5, 1e18}[rng.below(6)];
        return any_integer(rng);
    }
    switch (rng.below(6)) {
        case 0:
            return nullptr;
        case 1:
            return rng.below(2) == 0;
        case 2:
            return any_integer(rng);
        case 3:
            return Json{{"batch", rng.below(4)}};
        default:
            return *places[rng.below(places.size() - 1)];
    }
}

// Mostly in what some operator is given, for that is what torch sees.
void change(Json& graph, Rng& rng) {
    std::vector<Json*> places;
    Json* part = &graph;
    if (rng.below(4) != 0 && graph.contains("nodes") && !graph["nodes"].empty()) {
        Json& nodes = graph["nodes"];
        if (nodes.is_array()) {
            Json& node = nodes[rng.below(nodes.size())];
            if (node.is_object() && node.contains("ops") && node["ops"].is_array() &&
                !node["ops"].empty())
                part = &node["ops"][rng.below(node["ops"].size())];
        }
    }
    collect(*part, places);
    if (places.size() < 2) return;
    Json& place = *places[rng.below(places.size() - 1)];
    if (place.is_array() && !place.empty()) {
        const auto at = static_cast<std::ptrdiff_t>(rng.below(place.size()));
        switch (rng.below(4)) {
            case 0:
                place.erase(place.begin() + at);
                return;
            case 1:
                place.push_back(Json(place[static_cast<std::size_t>(at)]));
                return;
            case 2:
                std::swap(place[static_cast<std::size_t>(at)], place[rng.below(place.size())]);
                return;
            default:
                break;
        }
    }
    place = other_literal(place, places, rng);
}

HostTensor drawn(DType dtype, const Shape& shape, Rng& rng) {
    HostTensor tensor = HostTensor::allocate(dtype, shape);
    std::fill_n(tensor.data(), tensor.bytes(), std::byte{0});
    if (dtype == DType::kF32)
        for (float& value : tensor.as<float>()) value = static_cast<float>(rng.uniform() - 0.5);
    if (dtype == DType::kI64)
        for (auto& value : tensor.as<std::int64_t>())
            value = static_cast<std::int64_t>(rng.below(4));
    return tensor;
}

// A step of two micro-batches, of both modes. Every way out of it but a crash is right.
Result<void> train(const std::string& graph, std::uint64_t seed) {
    ModelSpec spec;
    spec.graph = graph;
    spec.sha256 = "0";
    ExecutorOptions options;
    options.seed = seed;
    ECOPIPE_ASSIGN_OR_RETURN(const ModelInfo info, inspect_model(spec));
    options.range = {0, static_cast<int>(info.layers.size()) - 1};
    ECOPIPE_ASSIGN_OR_RETURN(auto executor, Executor::create(spec, options));
    Rng rng(seed);
    for (const TensorInfo& tensor : info.tensors) {
        Shape shape = tensor.shape;
        if (rng.below(64) == 0) shape.push_back(2);  // as a damaged weights file has it
        ECOPIPE_RETURN_IF_ERROR(executor->load_state(tensor.name, drawn(tensor.dtype, shape, rng)));
    }
    executor->begin_step(1, 4);
    std::vector<HostTensor> inputs;
    const HostTensor labels = drawn(DType::kI64, {2}, rng);
    for (const ModelInput& input : info.inputs) {
        Shape shape = input.shape;
        shape.insert(shape.begin(), 2);
        inputs.push_back(drawn(input.dtype, shape, rng));
    }
    for (std::uint32_t m = 0; m < 2; ++m) {
        ECOPIPE_RETURN_IF_ERROR(executor->forward(m, inputs, &labels));
        ECOPIPE_RETURN_IF_ERROR(executor->backward(m, {}));
    }
    static_cast<void>(executor->finish_step());
    executor->commit(0.05, 1);
    LossTotals totals;
    ECOPIPE_RETURN_IF_ERROR(executor->evaluate(inputs, &labels, totals));
    return {};
}

Json any_shape(Rng& rng) {
    static const std::vector<std::int64_t> kSizes = {0, 1, 2, 2, 3, 3, 4, 5, 8};
    Json shape = Json::array();
    for (std::uint64_t rank = rng.below(6); rank > 0; --rank)
        shape.push_back(kSizes[rng.below(kSizes.size())]);
    return shape;
}

Json any_number(Rng& rng) {
    static const std::vector<double> kNumbers = {0.0, 1.0, 0.5, -1.0, 2.0, 1e-5, 1e30, -3.7, 1e300};
    return kNumbers[rng.below(kNumbers.size())];
}

// Something of that type, of those that there are.
Json any_argument(const c10::TypePtr& type, const std::vector<std::string>& tensors, Rng& rng) {
    const auto some = [&](const auto& make) {
        Json list = Json::array();
        for (std::uint64_t count = rng.below(5); count > 0; --count) list.push_back(make());
        return list;
    };
    switch (type->kind()) {
        case c10::TypeKind::OptionalType:
            if (rng.below(3) == 0) return nullptr;
            return any_argument(type->castRaw<c10::OptionalType>()->getElementType(), tensors, rng);
        case c10::TypeKind::ListType: {
            const auto element = type->castRaw<c10::ListType>()->getElementType();
            return some([&] { return any_argument(element, tensors, rng); });
        }
        case c10::TypeKind::TensorType:
            return rng.below(12) == 0 ? any_number(rng) : Json(tensors[rng.below(tensors.size())]);
        case c10::TypeKind::FloatType:
            return any_number(rng);
        case c10::TypeKind::BoolType:
            return rng.below(2) == 0;
        case c10::TypeKind::NumberType:
            return rng.below(2) == 0 ? any_number(rng) : Json(any_integer(rng));
        case c10::TypeKind::StringType: {
            static const std::vector<std::string> kTexts = {
                "",          "none",      "tanh",  "same",  "valid", "constant", "reflect",
                "replicate", "circular",  "trunc", "floor", "row",   "batch",    "ij",
                "xy",        "ij,jk->ik", "i->",   "ii->i", "...,a"};
            return Json{{"string", kTexts[rng.below(kTexts.size())]}};
        }
        case c10::TypeKind::IntType:
        case c10::TypeKind::SymIntType:
            return any_integer(rng);
        default:
            return Json{{"dtype", rng.below(2) == 0 ? "F32" : "I64"}};
    }
}

// One operator of the list, given what its schema asks for and no more sense than that.
std::string operator_of(std::uint64_t seed) {
    Rng rng(keyed_seed(2, {seed}));
    const auto& names = graph_operators();
    const std::string name(names[seed % names.size()]);
    Json tensors = Json::object();
    std::vector<std::string> own;
    std::vector<std::string> given = {"%x", "%i", "%x"};
    static const char* const kKinds[] = {"F32", "F32", "F32", "F32", "I64", "BOOL", "F64"};
    for (int t = 0; t < 6; ++t) {
        own.push_back("t" + std::to_string(t));
        given.push_back("@" + own.back());
        const std::string kind = kKinds[rng.below(std::size(kKinds))];
        tensors[own.back()] = {{"dtype", kind},
                               {"shape", any_shape(rng)},
                               {"kind", kind == "F32" ? "parameter" : "buffer"}};
    }
    // Often several of one shape: what fits together goes on further.
    if (rng.below(2) == 0)
        for (int t = 1; t < 4; ++t)
            tensors[own[static_cast<std::size_t>(t)]]["shape"] = tensors[own[0]]["shape"];
    Json arguments = Json::array();
    const std::size_t dot = name.find('.');
    const auto handle = c10::Dispatcher::singleton().findSchema(
        {name.substr(0, dot), dot == std::string::npos ? "" : name.substr(dot + 1)});
    Json keywords = Json::object();
    if (handle) {
        for (const c10::Argument& argument : handle->schema().arguments()) {
            if (argument.default_value() && rng.below(3) == 0) break;
            Json value = any_argument(argument.real_type(), given, rng);
            if (rng.below(16) == 0 && (value.is_number() || value.is_boolean()))
                value = Json{{"training", value}, {"evaluation", value}};
            if (argument.kwarg_only())
                keywords[argument.name()] = std::move(value);
            else
                arguments.push_back(std::move(value));
        }
    } else {
        arguments = {given[rng.below(given.size())], any_number(rng), Json{{"string", "row"}}};
        if (name != "ecopipe::stochastic_depth") arguments.erase(2);
    }
    Json shape = any_shape(rng);
    shape.insert(shape.begin(), "B");
    Json integers = any_shape(rng);
    integers.insert(integers.begin(), "B");
    int outputs = handle ? static_cast<int>(handle->schema().returns().size()) : 1;
    const auto at = [&](int after) { return "%" + std::to_string(outputs + after); };
    return Json{{"format", "ecopipe-graph/1"},
                {"inputs",
                 {{{"name", "x"}, {"dtype", "F32"}, {"shape", shape}},
                  {{"name", "i"}, {"dtype", "I64"}, {"shape", integers}}}},
                {"values", {{"y", {{"dtype", "F32"}, {"shape", {"B", 4}}}}}},
                {"nodes",
                 {{{"name", "n"},
                   {"kind", "k"},
                   {"in", {"x", "i"}},
                   {"out", Json::array({Json::array({"y", outputs + 3})})},
                   {"tensors", own},
                   {"ops",
                    {{name, arguments, keywords, outputs},
                     {"aten::to.dtype", {"%0", {{"dtype", "F32"}}}, Json::object(), 1},
                     {"aten::mean", {at(0)}, Json::object(), 1},
                     {"aten::full", {{{{"batch", 1}}, 4}, 0.5}, Json::object(), 1},
                     {"aten::mul.Tensor", {at(2), at(1)}, Json::object(), 1}}}}}},
                {"outputs", {"y"}},
                {"tensors", tensors}}
        .dump();
}

using Maker = std::function<std::string(std::uint64_t seed)>;

void run_chunk(std::uint64_t first, const Maker& make, Progress& progress) {
    alarm(kSecondsMax);
    static_cast<void>(freopen("/dev/null", "w", stderr));  // torch warns
    configure_torch(1);
    const rlimit limit{kAddressSpace, kAddressSpace};
    setrlimit(RLIMIT_AS, &limit);
    for (std::uint64_t seed = first; seed < first + kChunk; ++seed) {
        progress.seed = seed;
        Result<void> done;
        try {
            done = train(make(seed), seed);
        } catch (const std::bad_alloc&) {  // a weight or an input of 2 GiB, as a graph may have
            done = fail(ExitCode::kRunFailed, "no memory");
        }
        if (!done && done.error().message.find('\n') != std::string::npos) _exit(3);
        ++(done ? progress.trained : progress.refused);
    }
    _exit(0);
}

// ECOPIPE_DAMAGED_GRAPHS: how many, for a longer look.
void expect_refused_or_trained(const Maker& make) {
    const char* more = std::getenv("ECOPIPE_DAMAGED_GRAPHS");
    const std::uint64_t count = more == nullptr ? 4 * kChunk : std::strtoull(more, nullptr, 10);
    auto* progress = new (mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Progress{};
    for (std::uint64_t first = 0; first < count; first += kChunk) {
        const pid_t child = fork();
        if (child == 0) run_chunk(first, make, *progress);
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0) << "graph " << progress->seed << ": " << make(progress->seed);
    }
    EXPECT_GT(progress->trained, count / 40);
    EXPECT_GT(progress->refused, count / 40);
    munmap(progress, sizeof(Progress));
}

TEST(GraphDamage, AGraphWithChangesIsRefusedOrTrains) {
    std::vector<std::string> corpus;
    for (const char* name : {"small.json", "lstm.json"})
        corpus.push_back(
            *read_file(std::string(ECOPIPE_SOURCE_DIR) + "/fuzz/corpus/graph/" + name, 1 << 20));
    expect_refused_or_trained([&](std::uint64_t seed) {
        Rng rng(keyed_seed(1, {seed}));
        Json graph = Json::parse(corpus[seed % corpus.size()]);
        for (std::uint64_t times = 1 + rng.below(3); times > 0; --times) change(graph, rng);
        return graph.dump();
    });
}

TEST(GraphDamage, AnOperatorGivenAnythingIsRefusedOrRuns) {
    expect_refused_or_trained(operator_of);
}

}  // namespace
}  // namespace ecopipe
