#include "planner/report/gantt.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "core/strict_json.h"
#include "planner/schedule/schedule_csv.h"

namespace ecopipe {
namespace {

constexpr double kLeft = 110;    // px for the lanes' names
constexpr double kWidth = 1100;  // of the time axis
constexpr double kRight = 30;
constexpr double kLane = 26;
constexpr double kLinkLane = 9;
constexpr double kGap = 4;
constexpr double kTitle = 34;
constexpr double kAxis = 30;
constexpr double kLegend = 40;
constexpr double kGlyph = 6.2;  // width of a digit at the labels' size

// Plain fills first, for viewers that know neither media queries nor variables.
constexpr const char* kStyle = R"(<style>
text{font:11px sans-serif;fill:#1c2430}.title{font-weight:bold;font-size:13px}.right{text-anchor:end}
.soft{fill:#66707f}.label{fill:#ffffff;text-anchor:middle}.tick{stroke:#66707f;stroke-width:.5}
.ground{fill:#ffffff}.lane{fill:#e9edf2}.f{fill:#4c8bf5}.b{fill:#2fa36b}.r{fill:#e0a526}.i{fill:#16a3a3}.w{fill:#a05fd0}.u{fill:#8a93a3}.t{fill:#d0746c}
@media (prefers-color-scheme:dark){text{fill:#e6eaf0}.soft{fill:#9aa4b3}.label{fill:#10141a}.tick{stroke:#9aa4b3}
.ground{fill:#14181f}.lane{fill:#262d38}.f{fill:#5b97ff}.b{fill:#3dbb80}.r{fill:#edb63a}.i{fill:#28bcbc}.w{fill:#b67ce2}.u{fill:#76808f}.t{fill:#e08b83}}
</style>
)";

std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '&') {
            out += "&amp;";
        } else if (c == '<') {
            out += "&lt;";
        } else if (c == '>') {
            out += "&gt;";
        } else if (c == '"') {
            out += "&quot;";
        } else {
            out += c;
        }
    }
    return out;
}

char colour_of(ActionKind kind) {
    switch (kind) {
        case ActionKind::kForward:
            return 'f';
        case ActionKind::kBackward:
            return 'b';
        case ActionKind::kInputGradient:
            return 'i';
        default:
            return 'w';
    }
}

const char* kind_name(ActionKind kind) {
    switch (kind) {
        case ActionKind::kForward:
            return "forward";
        case ActionKind::kBackward:
            return "backward";
        case ActionKind::kInputGradient:
            return "input gradient";
        default:
            return "weight gradient";
    }
}

// A round step of the axis: 1, 2 or 5 times a power of ten, about ten of them.
double tick_step(double whole_ms) {
    const double power = std::pow(10, std::floor(std::log10(whole_ms / 8)));
    for (const double factor : {1.0, 2.0, 5.0})
        if (whole_ms / (factor * power) <= 12) return factor * power;
    return 10 * power;
}

std::string lane_name(const PipelineCosts& costs, std::size_t device) {
    const std::string& name = costs.device_names[device];
    return name.empty() ? fmt::format("stage {}", device) : fmt::format("{} {}", device, name);
}

class Drawing {
  public:
    explicit Drawing(double whole_ms) : whole_ms_(whole_ms > 0 ? whole_ms : 1) {}

    void panel(const GanttPanel& panel) {
        text("title", 8, y_ + 20, panel.title);
        y_ += kTitle;
        const double top = y_;
        devices(panel);
        links(panel);
        axis(top);
    }

    std::string finish() {
        legend();
        const double width = kLeft + kWidth + kRight;
        return fmt::format(
                   "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
                   "viewBox=\"0 0 {0:.0f} "
                   "{1:.0f}\">\n{2}<rect class=\"ground\" width=\"{0:.0f}\" height=\"{1:.0f}\"/>\n",
                   width, y_, kStyle) +
               body_ + "</svg>\n";
    }

  private:
    [[nodiscard]] double x(double ms) const { return kLeft + ms / whole_ms_ * kWidth; }

    void text(const char* style, double at_x, double at_y, const std::string& words) {
        fmt::format_to(std::back_inserter(body_),
                       "<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", style, at_x,
                       at_y, escaped(words));
    }
    void bar(char style, double start_ms, double end_ms, double top, double height,
             const std::string& tip) {
        if (end_ms <= start_ms) return;
        fmt::format_to(std::back_inserter(body_),
                       "<rect class=\"{}\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" "
                       "height=\"{:.0f}\" rx=\"1.5\"><title>{}</title>"
                       "</rect>\n",
                       style, x(start_ms), top, std::max(0.3, x(end_ms) - x(start_ms) - 0.4),
                       height, escaped(tip));
    }
    void lane(const std::string& name, double height) {
        text(height < kLane ? "soft right" : "right", kLeft - 8, y_ + height / 2 + 4, name);
        fmt::format_to(
            std::back_inserter(body_),
            "<rect class=\"lane\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\"/>\n",
            kLeft, y_, kWidth, height);
    }

    void devices(const GanttPanel& panel) {
        const Timeline& timeline = *panel.timeline;
        for (int d = 0; d < panel.costs->place.devices(); ++d) {
            lane(lane_name(*panel.costs, static_cast<std::size_t>(d)), kLane);
            for (const ActionSpan& span : timeline.actions)
                if (span.device == d)
                    action(span, panel.costs->stages[static_cast<std::size_t>(span.stage)]);
            const auto at = static_cast<std::size_t>(d);
            bar('u', timeline.update_start_ms[at], timeline.device_end_ms[at], y_ + 1, kLane - 2,
                "update");
            y_ += kLane + kGap;
        }
    }

    void action(const ActionSpan& span, const StageCost& stage) {
        const std::string tip = fmt::format("{} of micro-batch {}, stage {}: {:.3f} to {:.3f} ms",
                                            kind_name(span.action.kind), span.action.micro_batch,
                                            span.stage, span.start_ms, span.end_ms);
        double start_ms = span.start_ms;
        if (span.action.kind == ActionKind::kBackward && stage.recompute_ms > 0) {
            start_ms += stage.recompute_ms;
            bar('r', span.start_ms, start_ms, y_ + 1, kLane - 2, "recomputation, then " + tip);
        }
        bar(colour_of(span.action.kind), start_ms, span.end_ms, y_ + 1, kLane - 2, tip);
        const std::string label = fmt::format(
            "{}{}", span.action.micro_batch,
            std::string(static_cast<std::size_t>(std::min(3, span.action.slice)), '\''));
        const double room = x(span.end_ms) - x(start_ms);
        if (room > kGlyph * static_cast<double>(label.size()) + 2)
            text("label", x(start_ms) + room / 2, y_ + kLane / 2 + 4, label);
    }

    void links(const GanttPanel& panel) {
        const auto& resources = panel.costs->resources;
        for (std::size_t r = 0; r < resources.size(); ++r) {
            bool used = false;
            for (const TransferSpan& span : panel.timeline->transfers) {
                if (static_cast<std::size_t>(span.resource) != r || span.end_ms <= span.start_ms)
                    continue;
                if (!used) lane(resources[r].name, kLinkLane);
                used = true;
                bar('t', span.start_ms, span.end_ms, y_ + 1, kLinkLane - 2,
                    fmt::format("{} from {} to stage {}: {:.3f} to {:.3f} ms, there at {:.3f}",
                                span.micro_batch < panel.costs->micro_batches
                                    ? fmt::format("micro-batch {}", span.micro_batch)
                                    : std::string("a layer's sum"),
                                span.from_stage < 0 ? std::string("the portal")
                                                    : fmt::format("stage {}", span.from_stage),
                                span.to_stage, span.start_ms, span.end_ms, span.arrival_ms));
            }
            if (used) y_ += kLinkLane + kGap;
        }
    }

    void axis(double top) {
        const double step = tick_step(whole_ms_);
        for (int i = 0; i * step <= whole_ms_ * (1 + 1e-9); ++i) {
            const double at = x(i * step);
            fmt::format_to(std::back_inserter(body_),
                           "<line class=\"tick\" x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" "
                           "y2=\"{2:.1f}\"/>\n",
                           at, top, y_ + 4);
            text("soft", at - 4, y_ + 16, fmt::format("{:.6g}", i * step));
        }
        text("soft", x(whole_ms_) + 6, y_ + 16, "ms");
        y_ += kAxis;
    }

    void legend() {
        double at = kLeft;
        const auto entry = [&](char style, const std::string& name) {
            fmt::format_to(std::back_inserter(body_),
                           "<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" "
                           "height=\"12\" rx=\"1.5\"/>\n",
                           style, at, y_ + 8);
            text("", at + 19, y_ + 18, name);
            at += 36 + kGlyph * static_cast<double>(name.size());
        };
        for (const auto& [style, name] :
             {std::pair('f', "forward"), std::pair('b', "backward"), std::pair('r', "recompute"),
              std::pair('i', "input gradient"), std::pair('w', "weight gradient"),
              std::pair('u', "update"), std::pair('t', "transfer")})
            entry(style, name);
        fmt::format_to(
            std::back_inserter(body_),
            "<rect class=\"lane\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"12\"/>\n", at,
            y_ + 8);
        text("", at + 19, y_ + 18, "bubble");
        y_ += kLegend;
    }

    double whole_ms_;
    double y_ = 4;
    std::string body_;
};

OrderedJson span_json(const std::string& name, const char* category, std::size_t thread,
                      double start_ms, double end_ms) {
    return {{"name", name},
            {"cat", category},
            {"ph", "X"},
            {"pid", 1},
            {"tid", thread},
            {"ts", start_ms * 1000},
            {"dur", (end_ms - start_ms) * 1000}};
}

OrderedJson thread_json(std::size_t thread, const std::string& name) {
    return {{"name", "thread_name"},
            {"ph", "M"},
            {"pid", 1},
            {"tid", thread},
            {"args", {{"name", name}}}};
}

}  // namespace

std::string gantt_svg(const std::vector<GanttPanel>& panels) {
    double whole_ms = 0;
    for (const GanttPanel& panel : panels) whole_ms = std::max(whole_ms, panel.timeline->step_ms);
    Drawing drawing(whole_ms);
    for (const GanttPanel& panel : panels) drawing.panel(panel);
    return drawing.finish();
}

std::string chrome_trace(const PipelineCosts& costs, const Timeline& timeline) {
    OrderedJson events = OrderedJson::array();
    events.push_back(
        {{"name", "process_name"}, {"ph", "M"}, {"pid", 1}, {"args", {{"name", "pipeline"}}}});
    const auto devices = static_cast<std::size_t>(costs.place.devices());
    for (std::size_t d = 0; d < devices; ++d) {
        events.push_back(thread_json(d, lane_name(costs, d)));
        if (timeline.device_end_ms[d] > timeline.update_start_ms[d])
            events.push_back(span_json("update", "update", d, timeline.update_start_ms[d],
                                       timeline.device_end_ms[d]));
    }
    for (std::size_t r = 0; r < costs.resources.size(); ++r)
        events.push_back(thread_json(devices + r, costs.resources[r].name));
    for (const ActionSpan& span : timeline.actions)
        events.push_back(span_json(action_text(span.action), kind_name(span.action.kind),
                                   static_cast<std::size_t>(span.device), span.start_ms,
                                   span.end_ms));
    for (const TransferSpan& span : timeline.transfers)
        events.push_back(span_json(
            fmt::format("{} to stage {}",
                        span.micro_batch < costs.micro_batches ? std::to_string(span.micro_batch)
                                                               : std::string("a layer's sum"),
                        span.to_stage),
            "transfer", devices + static_cast<std::size_t>(span.resource), span.start_ms,
            span.end_ms));
    OrderedJson out = {{"displayTimeUnit", "ms"}};
    out["traceEvents"] = std::move(events);
    return out.dump() + "\n";
}

}  // namespace ecopipe
