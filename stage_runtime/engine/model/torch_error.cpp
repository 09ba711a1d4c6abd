#include "stage_runtime/engine/model/torch_error.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <array>
#include <optional>
#include <string_view>

#include "core/log.h"
#include "stage_runtime/engine/model/torch_compat.h"

namespace ecopipe {
namespace {

// Operators that people bring from a newer PyTorch, and the first LibTorch that has them.
struct NewOperator {
    std::string_view name;
    std::string_view since;
};
constexpr std::array<NewOperator, 3> kNewOperators{{{"aten::scaled_dot_product_attention", "2.0"},
                                                    {"aten::rms_norm", "2.4"},
                                                    {"aten::_safe_softmax", "2.5"}}};

// What TorchScript says of an operator that it does not know, as the remedy; or nothing.
std::optional<std::string> unknown_operator(std::string_view message) {
    constexpr std::string_view kMarker = "Unknown builtin op: ";
    const std::size_t found = message.find(kMarker);
    if (found == std::string_view::npos) return std::nullopt;
    std::string_view name = message.substr(found + kMarker.size());
    name = name.substr(0, name.find_first_of(" \n"));
    while (name.ends_with('.')) name.remove_suffix(1);
    std::string since = "a newer LibTorch, such as the one it was saved with,";
    for (const NewOperator& entry : kNewOperators)
        if (entry.name == name) since = fmt::format("LibTorch {} or newer", entry.since);
    return fmt::format("the model uses the operator {}, which LibTorch {} does not have; {} has it",
                       name, torch_versions().torch, since);
}

// TorchScript errors end in what happened, others begin with it.
std::string_view meaningful_line(std::string_view message) {
    for (const std::string_view marker : {"RuntimeError: ", "ValueError: "})
        if (const std::size_t at = message.rfind(marker); at != std::string_view::npos)
            message = message.substr(at + marker.size());
    if (const std::size_t at = message.rfind("builtins.ValueError"); at != std::string_view::npos)
        message = message.substr(at);
    const std::size_t begin = message.find_first_not_of(" \t\r\n");
    if (begin == std::string_view::npos) return "an error without a message";
    message = message.substr(begin);
    return message.substr(0, message.find('\n'));
}

}  // namespace

std::string torch_message(const std::exception& error) {
    const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
    const std::string text =
        of_torch != nullptr ? of_torch->what_without_backtrace() : std::string(error.what());
    if (const auto remedy = unknown_operator(text)) return one_line(*remedy);
    return one_line(meaningful_line(text));
}

}  // namespace ecopipe
