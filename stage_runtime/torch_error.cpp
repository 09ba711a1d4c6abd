#include "stage_runtime/torch_error.h"

#include <c10/util/Exception.h>

#include "core/log.h"

namespace ecopipe {
namespace {

std::string last_meaningful_line(const std::string& message) {
    constexpr std::string_view kScriptMarker = "RuntimeError: ";
    constexpr std::string_view kScriptValueMarker = "ValueError: ";
    for (const std::string_view marker : {kScriptMarker, kScriptValueMarker}) {
        const std::size_t at = message.rfind(marker);
        if (at == std::string::npos) continue;
        const std::size_t begin = at + marker.size();
        return message.substr(begin, message.find('\n', begin) - begin);
    }
    if (const std::size_t at = message.rfind("builtins.ValueError"); at != std::string::npos)
        return message.substr(at, message.find('\n', at) - at);
    return message.substr(0, message.find('\n'));
}

}  // namespace

std::string torch_message(const std::exception& error) {
    const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
    const std::string text =
        of_torch != nullptr ? of_torch->what_without_backtrace() : std::string(error.what());
    return printable(last_meaningful_line(text));
}

}  // namespace ecopipe
