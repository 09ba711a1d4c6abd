#pragma once
// A federation's view as JSON (status --json, the web page), as text for people, and as Prometheus'
// text format.

#include <string>

#include "core/strict_json.h"
#include "fl_server/view/federation_view.h"

namespace ecopipe {

[[nodiscard]] OrderedJson view_json(const FederationView& view);
[[nodiscard]] std::string status_text(const Json& view);  // of view_json
[[nodiscard]] std::string prometheus_text(const FederationView& view);

}  // namespace ecopipe
