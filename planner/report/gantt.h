#pragma once
// Pictures of a step: an SVG Gantt chart, and a Chrome trace for chrome://tracing or Perfetto.

#include <string>
#include <vector>

#include "planner/cost/pipeline_costs.h"
#include "planner/simulate/simulator.h"

namespace ecopipe {

struct GanttPanel {
    std::string title;
    const PipelineCosts* costs;  // both must outlive the call
    const Timeline* timeline;
};

// Panels below one another on one time axis: devices down, time across; forward, backward,
// recomputation, input and weight gradients and updates in their colours with the micro-batch's
// number (and ' for each slice) where there is room; what stays empty in a lane is bubble; under
// the devices one thin lane a link. Readable on light and dark backgrounds: the colours follow the
// viewer's preference.
[[nodiscard]] std::string gantt_svg(const std::vector<GanttPanel>& panels);

// One process "pipeline" with a thread a device and one a link; times in microseconds.
[[nodiscard]] std::string chrome_trace(const PipelineCosts& costs, const Timeline& timeline);

}  // namespace ecopipe
