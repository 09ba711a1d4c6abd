#include "domain/model_spec.h"

#include <fmt/format.h>

namespace ecopipe {

Result<bool> parse_frozen_norm(const std::string& text) {
    if (text != "train" && text != "eval")
        return fail(ExitCode::kUsage,
                    fmt::format("--frozen-norm: expected train or eval, found '{}'", text));
    return text == "eval";
}

}  // namespace ecopipe
