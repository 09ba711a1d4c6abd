#include "stage_runtime/engine/model/graph/graph_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <set>

#include "core/strict_json.h"
#include "stage_runtime/engine/model/graph/operators.h"

namespace ecopipe {
namespace {

constexpr std::string_view kFormat = "ecopipe-graph/";
constexpr int kFormatNumber = 1;
constexpr std::size_t kGraphTensorsMax = 65'536;
constexpr std::size_t kGraphNameMax = 512;   // bytes
constexpr std::size_t kArgumentsMax = 64;    // of an operator
constexpr std::size_t kGraphListMax = 4096;  // elements of an argument
constexpr int kGraphListDepthMax = 3;
constexpr std::size_t kNodeValuesMax = 64;  // that come in, and that go out: as on the wire
constexpr std::size_t kGraphTensorBytesMax = 2ULL << 30;  // of one sample, as on the wire
constexpr std::uint64_t kGraphWeightBytesMax = 64ULL << 30;
constexpr std::uint64_t kGraphIntegerBytesMax = 1ULL << 30;  // of those that are no weights
constexpr std::int64_t kBatchTimesMax = std::int64_t{1} << 31;

using namespace graph_argument;

class GraphReader {
  public:
    GraphReader(const Json& json, std::string source) : json_(json), source_(std::move(source)) {}

    Result<GraphFile> read() {
        ECOPIPE_RETURN_IF_ERROR(read_format());
        ECOPIPE_RETURN_IF_ERROR(only(json_, "the graph",
                                     {"format", "made_by", "aten", "inputs", "values", "nodes",
                                      "outputs", "tensors", "tied", "proof"}));
        ECOPIPE_RETURN_IF_ERROR(read_inputs());
        ECOPIPE_RETURN_IF_ERROR(read_tensors());
        ECOPIPE_RETURN_IF_ERROR(read_tied());
        ECOPIPE_RETURN_IF_ERROR(read_nodes());
        ECOPIPE_RETURN_IF_ERROR(read_output());
        return std::move(graph_);
    }

  private:
    [[nodiscard]] tl::unexpected<Error> bad(const std::string& place,
                                            const std::string& what) const {
        return fail(ExitCode::kBadFile, fmt::format("{}: {}: {}", source_, place, what));
    }

    Result<void> read_format() {
        const auto format = json_.is_object() ? json_.find("format") : json_.end();
        if (!json_.is_object() || format == json_.end() || !format->is_string() ||
            !format->get_ref<const std::string&>().starts_with(kFormat))
            return bad("format", fmt::format("expected {}{}", kFormat, kFormatNumber));
        const std::string number = format->get<std::string>().substr(kFormat.size());
        if (number != std::to_string(kFormatNumber))
            return fail(ExitCode::kMismatch,
                        fmt::format("{}: expected a graph of format {}{}, found {}", source_,
                                    kFormat, kFormatNumber, shown(*format)));
        return {};
    }

    Result<void> only(const Json& object, const std::string& place,
                      const std::set<std::string>& known) const {
        if (!object.is_object()) return bad(place, "expected an object, found " + shown(object));
        for (const auto& [key, value] : object.items())
            if (!known.contains(key)) return bad(place, "unknown key " + shown(key));
        return {};
    }

    Result<const Json*> need(const Json& object, const std::string& place, const char* key,
                             Json::value_t type) const {
        const auto found = object.find(key);
        if (found == object.end()) return bad(place, fmt::format("{} is missing", key));
        if (found->type() != type)
            return bad(place, fmt::format("{}: expected {}, found {}", key,
                                          type == Json::value_t::array    ? "a list"
                                          : type == Json::value_t::object ? "an object"
                                                                          : "a text",
                                          shown(*found)));
        return &*found;
    }

    Result<std::string> name_in(const Json& json, const std::string& place) const {
        if (!json.is_string()) return bad(place, "expected a name, found " + shown(json));
        const auto& text = json.get_ref<const std::string&>();
        const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
            return static_cast<unsigned char>(c) > ' ' && static_cast<unsigned char>(c) < 127 &&
                   c != '"' && c != '\\';
        });
        if (text.empty() || text.size() > kGraphNameMax || !plain)
            return bad(place, "expected a name of printable characters, found " + shown(json));
        return text;
    }

    Result<std::string> name_of(const Json& object, const std::string& place,
                                const char* key) const {
        ECOPIPE_ASSIGN_OR_RETURN(const Json* found,
                                 need(object, place, key, Json::value_t::string));
        return name_in(*found, place + " " + key);
    }

    Result<DType> dtype_in(const Json& json, const std::string& place) const {
        const auto dtype =
            json.is_string() ? dtype_named(json.get_ref<const std::string&>()) : std::nullopt;
        if (!dtype) return bad(place, "expected an element type such as F32, found " + shown(json));
        return *dtype;
    }

    // 7, "B" or "7B".
    Result<GraphSize> size_in(const Json& json, const std::string& place) const {
        if (json.is_number_integer()) {
            ECOPIPE_ASSIGN_OR_RETURN(const std::int64_t number, integer_in(json, place));
            if (number < 0) return bad(place, "expected a size, found " + shown(json));
            return GraphSize{number, false};
        }
        if (json.is_string()) {
            const auto& text = json.get_ref<const std::string&>();
            if (text == "B") return GraphSize{1, true};
            GraphSize size{0, true};
            const char* const end = text.data() + text.size();
            const auto [rest, error] = std::from_chars(text.data(), end, size.number);
            if (error == std::errc() && rest == end - 1 && *rest == 'B' && size.number > 0 &&
                size.number <= kBatchTimesMax)
                return size;
        }
        return bad(place, "expected a size such as 64, \"B\" or \"8B\", found " + shown(json));
    }

    Result<std::int64_t> integer_in(const Json& json, const std::string& place) const {
        if (json.is_number_unsigned()) {
            const auto number = json.get<std::uint64_t>();
            if (number <= static_cast<std::uint64_t>(kGraphNumberMax) ||
                // PyTorch's own way to say "to the end".
                number == static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
                return static_cast<std::int64_t>(number);
        } else if (json.is_number_integer()) {
            const auto number = json.get<std::int64_t>();
            if (number >= -kGraphNumberMax) return number;
        }
        return bad(place, "expected a whole number within bounds, found " + shown(json));
    }

    // What is said of a value; its name stands beside it.
    Result<GraphValue> facts_in(const Json& json, const std::string& place) const {
        GraphValue value;
        const auto dtype = json.find("dtype");
        if (dtype == json.end()) return bad(place, "dtype is missing");
        ECOPIPE_ASSIGN_OR_RETURN(value.dtype, dtype_in(*dtype, place + " dtype"));
        ECOPIPE_ASSIGN_OR_RETURN(const Json* shape,
                                 need(json, place, "shape", Json::value_t::array));
        if (shape->size() > static_cast<std::size_t>(kTensorRankMax))
            return bad(place, "has too many dimensions");
        std::vector<std::int64_t> of_one;
        for (const Json& each : *shape) {
            ECOPIPE_ASSIGN_OR_RETURN(const GraphSize size, size_in(each, place + " shape"));
            value.shape.push_back(size);
            of_one.push_back(size.at(1));
        }
        value.gradient = is_floating(value.dtype);
        const auto bytes = checked_bytes(value.dtype, of_one);
        if (!bytes || *bytes > kGraphTensorBytesMax)
            return bad(place, "is larger than any tensor may be");
        return value;
    }

    // Adds a value under its name.
    Result<int> add_value(GraphValue value, const std::string& place) {
        if (std::all_of(value.name.begin(), value.name.end(),
                        [](char c) { return '0' <= c && c <= '9'; }))
            return bad(place, "a value's name is no number");
        const int number = static_cast<int>(graph_.values.size());
        if (!value_of_.emplace(value.name, number).second)
            return bad(place, "another value has this name");
        graph_.values.push_back(std::move(value));
        return number;
    }

    Result<void> read_inputs() {
        ECOPIPE_ASSIGN_OR_RETURN(const Json* inputs,
                                 need(json_, "the graph", "inputs", Json::value_t::array));
        if (inputs->empty() || inputs->size() > kNodeValuesMax)
            return bad("inputs", fmt::format("expected 1 to {}", kNodeValuesMax));
        for (const Json& each : *inputs) {
            ECOPIPE_RETURN_IF_ERROR(only(each, "inputs", {"name", "dtype", "shape"}));
            ECOPIPE_ASSIGN_OR_RETURN(std::string name, name_of(each, "inputs", "name"));
            const std::string place = "input " + name;
            ECOPIPE_ASSIGN_OR_RETURN(GraphValue value, facts_in(each, place));
            if (value.shape.empty() || !value.shape[0].of_batch || value.shape[0].number != 1)
                return bad(place, "expected \"B\" as its first dimension");
            for (std::size_t i = 1; i < value.shape.size(); ++i)
                if (value.shape[i].of_batch) return bad(place, "expected one dimension of B");
            value.name = std::move(name);
            ECOPIPE_ASSIGN_OR_RETURN(const int number, add_value(std::move(value), place));
            graph_.inputs = number + 1;
        }
        return {};
    }

    Result<void> read_tensors() {
        ECOPIPE_ASSIGN_OR_RETURN(const Json* tensors,
                                 need(json_, "the graph", "tensors", Json::value_t::object));
        if (tensors->size() > kGraphTensorsMax) return bad("tensors", "there are too many");
        std::uint64_t floating_bytes = 0;
        std::uint64_t integer_bytes = 0;
        for (const auto& [name, each] : tensors->items()) {
            ECOPIPE_ASSIGN_OR_RETURN(const std::string checked, name_in(name, "tensors"));
            const std::string place = "tensor " + checked;
            ECOPIPE_RETURN_IF_ERROR(only(each, place, {"dtype", "shape", "kind", "trainable"}));
            ECOPIPE_ASSIGN_OR_RETURN(const GraphValue facts, facts_in(each, place));
            GraphTensor tensor{checked, facts.dtype, {}, false, false, {}};
            for (const GraphSize& size : facts.shape) {
                if (size.of_batch) return bad(place, "its shape may not depend on the batch");
                tensor.shape.push_back(size.number);
            }
            ECOPIPE_ASSIGN_OR_RETURN(const std::string kind, name_of(each, place, "kind"));
            if (kind != "parameter" && kind != "buffer" && kind != "constant")
                return bad(place, "kind: expected parameter, buffer or constant");
            tensor.buffer = kind != "parameter";
            const auto trainable = each.find("trainable");
            if (trainable != each.end() && !trainable->is_boolean())
                return bad(place, "trainable: expected true or false");
            tensor.trainable = !tensor.buffer && is_floating(tensor.dtype) &&
                               (trainable == each.end() || trainable->get<bool>());
            // Those are made of zeros at once, so that what is looked up by them is in bounds.
            const bool touched = !is_floating(tensor.dtype);
            std::uint64_t& bytes = touched ? integer_bytes : floating_bytes;
            bytes += *checked_bytes(tensor.dtype, tensor.shape);
            if (bytes > (touched ? kGraphIntegerBytesMax : kGraphWeightBytesMax))
                return bad("tensors", "are larger together than any model's may be");
            tensor_of_[checked] = static_cast<int>(graph_.tensors.size());
            graph_.tensors.push_back(std::move(tensor));
        }
        return {};
    }

    Result<void> read_tied() {
        const auto groups = json_.find("tied");
        if (groups == json_.end()) return {};
        if (!groups->is_array()) return bad("tied", "expected a list");
        for (const Json& group : *groups) {
            if (!group.is_array() || group.size() < 2)
                return bad("tied", "expected lists of two names or more");
            ECOPIPE_ASSIGN_OR_RETURN(const std::string first, name_in(group[0], "tied"));
            const auto found = tensor_of_.find(first);
            if (found == tensor_of_.end()) return bad("tied", first + " is no tensor");
            for (std::size_t i = 1; i < group.size(); ++i) {
                ECOPIPE_ASSIGN_OR_RETURN(std::string other, name_in(group[i], "tied"));
                if (!tied_names_.insert(other).second || tensor_of_.contains(other))
                    return bad("tied", other + " stands there twice");
                graph_.tensors[static_cast<std::size_t>(found->second)].other_names.push_back(
                    std::move(other));
            }
        }
        return {};
    }

    Result<void> read_nodes() {
        ECOPIPE_ASSIGN_OR_RETURN(const Json* facts,
                                 need(json_, "the graph", "values", Json::value_t::object));
        ECOPIPE_ASSIGN_OR_RETURN(const Json* nodes,
                                 need(json_, "the graph", "nodes", Json::value_t::array));
        if (nodes->empty() || nodes->size() > kGraphNodesMax)
            return bad("nodes", fmt::format("expected 1 to {}", kGraphNodesMax));
        std::set<std::string> names;
        for (const Json& each : *nodes) {
            const std::string place = fmt::format("node {}", graph_.nodes.size());
            ECOPIPE_RETURN_IF_ERROR(
                only(each, place, {"name", "kind", "in", "out", "tensors", "ops"}));
            ECOPIPE_ASSIGN_OR_RETURN(const std::string name, name_of(each, place, "name"));
            if (!names.insert(name).second) return bad(place, name + " stands there twice");
            ECOPIPE_RETURN_IF_ERROR(read_node(each, *facts, name));
        }
        if (graph_.values.size() != static_cast<std::size_t>(graph_.inputs) + facts->size())
            return bad("values", "some are made by no node");
        return {};
    }

    Result<void> read_node(const Json& json, const Json& facts, const std::string& name) {
        const std::string place = "node " + name;
        GraphNode node;
        node.name = name;
        ECOPIPE_ASSIGN_OR_RETURN(node.kind, name_of(json, place, "kind"));
        ECOPIPE_ASSIGN_OR_RETURN(const Json* inputs, need(json, place, "in", Json::value_t::array));
        ECOPIPE_ASSIGN_OR_RETURN(const Json* outputs,
                                 need(json, place, "out", Json::value_t::array));
        ECOPIPE_ASSIGN_OR_RETURN(const Json* tensors,
                                 need(json, place, "tensors", Json::value_t::array));
        ECOPIPE_ASSIGN_OR_RETURN(const Json* operators,
                                 need(json, place, "ops", Json::value_t::array));
        if (inputs->size() > kNodeValuesMax || outputs->empty() || outputs->size() > kNodeValuesMax)
            return bad(place, fmt::format("expected at most {} values in, and 1 to {} out",
                                          kNodeValuesMax, kNodeValuesMax));
        names_here_.clear();
        for (const Json& each : *inputs) {
            ECOPIPE_ASSIGN_OR_RETURN(const std::string value, name_in(each, place + " in"));
            const auto found = value_of_.find(value);
            if (found == value_of_.end())
                return bad(place, "in: nothing before it makes " + shown(each));
            if (!names_here_
                     .emplace("%" + value,
                              GraphArgument{Value{static_cast<int>(node.inputs.size())}})
                     .second)
                return bad(place, "in: " + value + " stands there twice");
            node.inputs.push_back(found->second);
        }
        for (const Json& each : *tensors) {
            ECOPIPE_ASSIGN_OR_RETURN(const std::string tensor, name_in(each, place + " tensors"));
            const auto found = tensor_of_.find(tensor);
            if (found == tensor_of_.end()) return bad(place, tensor + " is no tensor of the graph");
            if (!names_here_
                     .emplace("@" + tensor,
                              GraphArgument{Tensor{static_cast<int>(node.tensors.size())}})
                     .second)
                return bad(place, "tensors: " + tensor + " stands there twice");
            node.tensors.push_back(found->second);
        }
        operators_ += operators->size();
        if (operators_ > kGraphOperatorsMax) return bad(place, "there are too many operators");
        for (const Json& each : *operators)
            ECOPIPE_RETURN_IF_ERROR(read_operator(each, place, node));
        for (const Json& each : *outputs) {
            if (!each.is_array() || each.size() != 2)
                return bad(place, "out: expected [value, number of the tensor]");
            ECOPIPE_ASSIGN_OR_RETURN(const std::string value, name_in(each[0], place + " out"));
            ECOPIPE_ASSIGN_OR_RETURN(const std::int64_t local, integer_in(each[1], place + " out"));
            if (local < 0 || local >= node.locals)
                return bad(place, fmt::format("out: no operator makes tensor {}", local));
            const auto fact = facts.find(value);
            if (fact == facts.end())
                return bad(place, "out: " + value + " is not among the values");
            ECOPIPE_RETURN_IF_ERROR(only(*fact, "value " + value, {"dtype", "shape", "gradient"}));
            ECOPIPE_ASSIGN_OR_RETURN(GraphValue made, facts_in(*fact, "value " + value));
            made.name = value;
            if (const auto gradient = fact->find("gradient"); gradient != fact->end()) {
                if (!gradient->is_boolean() || (*gradient == true && !made.gradient))
                    return bad("value " + value,
                               "gradient: expected true (of floating-point numbers) or false");
                made.gradient = gradient->get<bool>();
            }
            ECOPIPE_ASSIGN_OR_RETURN(const int number, add_value(std::move(made), place));
            node.outputs.emplace_back(number, static_cast<int>(local));
        }
        graph_.nodes.push_back(std::move(node));
        return {};
    }

    Result<void> read_operator(const Json& json, const std::string& node_place, GraphNode& node) {
        if (!json.is_array() || json.size() != 4 || !json[1].is_array() || !json[2].is_object())
            return bad(
                node_place,
                "expected operators as [name, arguments, keywords, outputs], found " + shown(json));
        ECOPIPE_ASSIGN_OR_RETURN(const std::string name, name_in(json[0], node_place));
        const std::string place = node_place + ": " + name;
        if (!is_graph_operator(name))
            return bad(node_place, name + " is no operator that a graph may use");
        GraphOperator op;
        const std::size_t dot = name.find('.');
        op.name = name.substr(0, dot);
        if (dot != std::string::npos) op.overload = name.substr(dot + 1);
        if (json[1].size() + json[2].size() > kArgumentsMax)
            return bad(place, "has too many arguments");
        for (const Json& each : json[1]) {
            ECOPIPE_ASSIGN_OR_RETURN(GraphArgument argument, argument_in(each, place, 0));
            op.arguments.push_back(std::move(argument));
        }
        for (const auto& [key, each] : json[2].items()) {
            ECOPIPE_ASSIGN_OR_RETURN(const std::string keyword, name_in(key, place));
            ECOPIPE_ASSIGN_OR_RETURN(GraphArgument argument, argument_in(each, place, 0));
            op.keywords.emplace_back(keyword, std::move(argument));
        }
        ECOPIPE_ASSIGN_OR_RETURN(const std::int64_t outputs, integer_in(json[3], place));
        if (outputs < 1 || outputs > kGraphOutputsMax)
            return bad(place, fmt::format("expected 1 to {} outputs", kGraphOutputsMax));
        op.outputs = static_cast<int>(outputs);
        op.first_local = node.locals;
        for (int i = 0; i < op.outputs; ++i)
            names_here_.emplace(fmt::format("%{}", node.locals + i),
                                GraphArgument{Local{node.locals + i}});
        node.locals += op.outputs;
        node.operators.push_back(std::move(op));
        return {};
    }

    Result<GraphArgument> argument_in(const Json& json, const std::string& place, int depth) const {
        if (json.is_null()) return GraphArgument{None{}};
        if (json.is_boolean()) return GraphArgument{json.get<bool>()};
        if (json.is_number_float()) return GraphArgument{json.get<double>()};
        if (json.is_number()) {
            ECOPIPE_ASSIGN_OR_RETURN(const std::int64_t number, integer_in(json, place));
            return GraphArgument{GraphSize{number, false}};
        }
        if (json.is_string()) {
            const auto found = names_here_.find(json.get_ref<const std::string&>());
            if (found == names_here_.end())
                return bad(place, "uses " + shown(json) + ", which is not there");
            return found->second;
        }
        if (json.is_array()) {
            if (depth == kGraphListDepthMax || json.size() > kGraphListMax)
                return bad(place, "a list is too long or too deep");
            GraphArgument::List list;
            for (const Json& each : json) {
                ECOPIPE_ASSIGN_OR_RETURN(GraphArgument element,
                                         argument_in(each, place, depth + 1));
                list.push_back(std::move(element));
            }
            return GraphArgument{std::move(list)};
        }
        return special_in(json, place, depth);
    }

    // An object: what JSON has no literal for.
    Result<GraphArgument> special_in(const Json& json, const std::string& place, int depth) const {
        const auto has = [&](const char* key) { return json.size() == 1 && json.contains(key); };
        if (has("batch")) {
            ECOPIPE_ASSIGN_OR_RETURN(const std::int64_t times, integer_in(json["batch"], place));
            if (times < 1 || times > kBatchTimesMax)
                return bad(place, "expected a multiple of the batch, found " + shown(json));
            return GraphArgument{GraphSize{times, true}};
        }
        if (has("dtype")) {
            ECOPIPE_ASSIGN_OR_RETURN(const DType dtype, dtype_in(json["dtype"], place));
            return GraphArgument{Type{dtype}};
        }
        if (has("string") && json["string"].is_string() &&
            json["string"].get_ref<const std::string&>().size() <= kGraphNameMax)
            return GraphArgument{json["string"].get<std::string>()};
        if (has("float")) {
            for (const auto& [text, value] :
                 {std::pair("inf", std::numeric_limits<double>::infinity()),
                  std::pair("-inf", -std::numeric_limits<double>::infinity()),
                  std::pair("nan", std::numeric_limits<double>::quiet_NaN())})
                if (json["float"] == text) return GraphArgument{value};
        }
        if (has("memory_format")) {
            for (const auto& [text, layout] :
                 {std::pair("contiguous", MemoryLayout::kContiguous),
                  std::pair("preserve", MemoryLayout::kPreserve),
                  std::pair("channels_last", MemoryLayout::kChannelsLast),
                  std::pair("channels_last_3d", MemoryLayout::kChannelsLast3d)})
                if (json["memory_format"] == text) return GraphArgument{layout};
        }
        if (json.size() == 2 && json.contains("training") && json.contains("evaluation")) {
            GraphArgument::Modes modes;
            for (const char* key : {"training", "evaluation"}) {
                const Json& literal = json[key];
                if (!literal.is_null() && !literal.is_boolean() && !literal.is_number())
                    return bad(place, fmt::format("{}: expected a literal, found {}", key,
                                                  shown(literal)));
                ECOPIPE_ASSIGN_OR_RETURN(GraphArgument each, argument_in(literal, place, depth));
                modes.literals.push_back(std::move(each));
            }
            return GraphArgument{std::move(modes)};
        }
        return bad(place, "expected an argument, found " + shown(json));
    }

    Result<void> read_output() {
        ECOPIPE_ASSIGN_OR_RETURN(const Json* outputs,
                                 need(json_, "the graph", "outputs", Json::value_t::array));
        if (outputs->size() != 1) return bad("outputs", "expected one");
        ECOPIPE_ASSIGN_OR_RETURN(const std::string name, name_in((*outputs)[0], "outputs"));
        const auto found = value_of_.find(name);
        if (found == value_of_.end() || found->second < graph_.inputs)
            return bad("outputs", name + " is made by no node");
        graph_.output = found->second;
        std::set<int> used{graph_.output};
        for (const GraphNode& node : graph_.nodes)
            used.insert(node.inputs.begin(), node.inputs.end());
        for (std::size_t i = 0; i < graph_.values.size(); ++i)
            if (!used.contains(static_cast<int>(i)))
                return bad("value " + graph_.values[i].name, "nobody uses it");
        return {};
    }

    const Json& json_;
    std::string source_;
    GraphFile graph_;
    std::map<std::string, int> value_of_;
    std::map<std::string, int> tensor_of_;
    std::set<std::string> tied_names_;
    std::map<std::string, GraphArgument> names_here_;  // of the node at hand
    std::size_t operators_ = 0;
};

}  // namespace

std::vector<ModelValue> GraphFile::model_values() const {
    std::vector<ModelValue> found;
    for (const GraphValue& value : values) {
        ModelValue fact;
        fact.has_gradient = value.gradient;
        found.push_back(fact);
    }
    for (int i = 0; i < inputs; ++i) found[static_cast<std::size_t>(i)].output = i;
    for (std::size_t node = 0; node < nodes.size(); ++node) {
        int place = 0;
        for (const auto& [value, local] : nodes[node].outputs) {
            found[static_cast<std::size_t>(value)].producer = static_cast<int>(node);
            found[static_cast<std::size_t>(value)].output = place++;
        }
        for (const int value : nodes[node].inputs)
            found[static_cast<std::size_t>(value)].consumers.push_back(static_cast<int>(node));
    }
    found[static_cast<std::size_t>(output)].consumers.push_back(static_cast<int>(nodes.size()));
    return found;
}

std::vector<std::vector<int>> GraphFile::arguments() const {
    std::vector<std::vector<int>> found;
    for (const GraphNode& node : nodes) found.push_back(node.inputs);
    found.push_back({output});
    return found;
}

Result<GraphFile> parse_graph(std::string_view text, const std::string& source) {
    if (text.size() > kGraphBytesMax)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: is longer than {} MiB", source, kGraphBytesMax >> 20U));
    ECOPIPE_ASSIGN_OR_RETURN(const Json json, parse_json(text, source));
    return GraphReader(json, source).read();
}

}  // namespace ecopipe
