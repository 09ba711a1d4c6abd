#include "fl_server/simulation/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace ecopipe {
namespace {

constexpr std::size_t kInARow = 3;

double rounded(double value, double unit) { return std::round(value / unit) * unit; }

// XML text.
std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '<') {
            out += "&lt;";
        } else if (c == '&') {
            out += "&amp;";
        } else {
            out += c;
        }
    }
    return out;
}

struct CurvePoint {
    double virtual_s = 0;
    double low = 0;
    double mean = 0;
    double high = 0;
};

// Over the seeds, as far as all of them go.
std::vector<CurvePoint> curve(const SeedRuns& seeds) {
    std::size_t length = SIZE_MAX;
    for (const auto& [seed, points] : seeds) length = std::min(length, points.size());
    std::vector<CurvePoint> out;
    for (std::size_t i = 0; !seeds.empty() && i < length; ++i) {
        CurvePoint point{seeds.begin()->second[i].virtual_s, 1, 0, 0};
        for (const auto& [seed, points] : seeds) {
            point.low = std::min(point.low, points[i].accuracy);
            point.high = std::max(point.high, points[i].accuracy);
            point.mean += points[i].accuracy / static_cast<double>(seeds.size());
        }
        out.push_back(point);
    }
    return out;
}

}  // namespace

Result<std::vector<EvaluationPoint>> evaluations_in(const std::string& text,
                                                    const std::string& source) {
    std::vector<EvaluationPoint> points;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        const std::string_view line(text.data() + begin, end - begin);
        begin = end + 1;
        if (line.find("\"evaluation\"") == std::string_view::npos) continue;
        ECOPIPE_ASSIGN_OR_RETURN(const Json json, parse_json(line, source));
        if (!json.contains("virtual_s") || !json.contains("accuracy"))
            return fail(ExitCode::kBadFile, source + ": an evaluation without its numbers");
        points.push_back({json["virtual_s"].get<double>(), json["accuracy"].get<double>()});
    }
    return points;
}

std::optional<double> time_to(const std::vector<EvaluationPoint>& points, double accuracy) {
    std::size_t row = 0;
    for (std::size_t i = 0; i < points.size(); ++i) {
        row = points[i].accuracy >= accuracy ? row + 1 : 0;
        if (row == kInARow) return points[i + 1 - kInARow].virtual_s;
    }
    return std::nullopt;
}

OrderedJson summary_json(const std::vector<StrategyRuns>& runs,
                         const std::vector<std::int64_t>& targets_percent) {
    OrderedJson out = OrderedJson::object();
    for (const StrategyRuns& run : runs) {
        OrderedJson one;
        for (const std::int64_t target : targets_percent) {
            OrderedJson by_seed = OrderedJson::object();
            double sum = 0;
            bool all = !run.seeds.empty();
            for (const auto& [seed, points] : run.seeds) {
                const auto time = time_to(points, static_cast<double>(target) / 100);
                by_seed[std::to_string(seed)] = time ? OrderedJson(*time) : OrderedJson();
                all = all && time;
                sum += time.value_or(0);
            }
            by_seed["mean"] =
                all ? OrderedJson(rounded(sum / static_cast<double>(run.seeds.size()), 0.1))
                    : OrderedJson();
            one["time_to_s"][std::to_string(target)] = by_seed;
        }
        for (const bool best : {true, false}) {
            OrderedJson by_seed = OrderedJson::object();
            double sum = 0;
            for (const auto& [seed, points] : run.seeds) {
                double value = points.empty() ? 0 : points.back().accuracy;
                if (best)
                    for (const EvaluationPoint& point : points)
                        value = std::max(value, point.accuracy);
                by_seed[std::to_string(seed)] = value;
                sum += value;
            }
            by_seed["mean"] =
                run.seeds.empty()
                    ? OrderedJson()
                    : OrderedJson(rounded(sum / static_cast<double>(run.seeds.size()), 1e-5));
            one[best ? "best_accuracy" : "final_accuracy"] = by_seed;
        }
        out[run.name] = one;
    }
    return out;
}

std::string summary_table(const OrderedJson& summary) {
    std::string out = fmt::format("{:<12}", "strategy");
    if (summary.empty()) return out + "\n";
    for (const auto& [target, unused] : summary.begin().value()["time_to_s"].items())
        out += fmt::format("{:>12}", target + " %");
    out += fmt::format("{:>10}\n", "best");
    for (const auto& [name, one] : summary.items()) {
        out += fmt::format("{:<12}", name);
        for (const auto& [target, times] : one["time_to_s"].items())
            out += times["mean"].is_null()
                       ? fmt::format("{:>12}", "-")
                       : fmt::format("{:>10.0f} s", times["mean"].get<double>());
        out += fmt::format("{:>8.2f} %\n", 100 * one["best_accuracy"]["mean"].get<double>());
    }
    return out;
}

std::string accuracy_svg(const std::vector<StrategyRuns>& runs, const std::string& title) {
    constexpr double kLeft = 60;
    constexpr double kTop = 40;
    constexpr double kWidth = 680;
    constexpr double kHeight = 380;
    // Okabe and Ito's colours, told apart by colour-blind eyes too.
    constexpr std::array<const char*, 8> kColours = {"#d55e00", "#0072b2", "#009e73", "#cc79a7",
                                                     "#e69f00", "#56b4e9", "#000000", "#999999"};
    double last_s = 1;
    for (const StrategyRuns& run : runs)
        for (const auto& [seed, points] : run.seeds)
            if (!points.empty()) last_s = std::max(last_s, points.back().virtual_s);
    const auto x = [&](double seconds) { return kLeft + kWidth * seconds / last_s; };
    const auto y = [&](double accuracy) { return kTop + kHeight * (1 - accuracy); };
    std::string svg = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0f} {:.0f}\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n"
        "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        "<text x=\"{:.0f}\" y=\"22\" font-size=\"14\">{}</text>\n",
        kLeft + kWidth + 150, kTop + kHeight + 50, kLeft, escaped(title));
    for (int tenth = 0; tenth <= 10; ++tenth)
        svg += fmt::format(
            "<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{2:.1f}\" y2=\"{1:.1f}\" "
            "stroke=\"#ddd\"/><text x=\"{3:.1f}\" y=\"{4:.1f}\" text-anchor=\"end\">{5} %</text>\n",
            kLeft, y(tenth / 10.0), kLeft + kWidth, kLeft - 6, y(tenth / 10.0) + 4, tenth * 10);
    for (int fifth = 0; fifth <= 5; ++fifth)
        svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:.0f}</text>\n",
                           x(last_s * fifth / 5), kTop + kHeight + 18, last_s * fifth / 5);
    svg += fmt::format(
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">virtual seconds</text>\n",
        kLeft + kWidth / 2, kTop + kHeight + 38);
    for (std::size_t r = 0; r < runs.size(); ++r) {
        const char* colour = kColours[r % kColours.size()];
        const auto points = curve(runs[r].seeds);
        std::string band;
        std::string line;
        for (const CurvePoint& point : points) {
            band += fmt::format("{:.1f},{:.1f} ", x(point.virtual_s), y(point.high));
            line += fmt::format("{:.1f},{:.1f} ", x(point.virtual_s), y(point.mean));
        }
        for (auto point = points.rbegin(); point != points.rend(); ++point)
            band += fmt::format("{:.1f},{:.1f} ", x(point->virtual_s), y(point->low));
        if (runs[r].seeds.size() > 1)
            svg += fmt::format("<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"0.15\"/>\n", band,
                               colour);
        svg += fmt::format(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"/>\n", line,
            colour);
        const double row = kTop + 12 + 20 * static_cast<double>(r);
        svg += fmt::format(
            "<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{2:.1f}\" y2=\"{1:.1f}\" stroke=\"{3}\" "
            "stroke-width=\"3\"/><text x=\"{4:.1f}\" y=\"{5:.1f}\">{6}</text>\n",
            kLeft + kWidth + 12, row, kLeft + kWidth + 36, colour, kLeft + kWidth + 42, row + 4,
            escaped(runs[r].name));
    }
    return svg + "</svg>\n";
}

}  // namespace ecopipe
