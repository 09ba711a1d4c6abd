#pragma once
// The JSON that the page draws and `status --json` prints (docs/VIEW.md).

#include "core/strict_json.h"
#include "orchestrator/view/run_view.h"

namespace ecopipe {

// Everything; `now_unix_ms` is put in, so that a reader knows how old it is.
[[nodiscard]] OrderedJson view_document(const RunSnapshot& run, std::int64_t now_unix_ms);
// The same without curves and timeline: what fits a small file.
[[nodiscard]] OrderedJson view_summary(const RunSnapshot& run, std::int64_t now_unix_ms);

// A summary's parts that a terminal shows, back from its JSON; a key that is missing stays at its
// default.
[[nodiscard]] RunSnapshot read_summary(const OrderedJson& summary);

}  // namespace ecopipe
