#include "fl_server/simulation/settings.h"

namespace ecopipe {
namespace {

constexpr double kSecondsMax = 1e9;

}  // namespace

void read_simulation(Fields fields, SimulationSettings& settings) {
    if (fields.has("bands")) {
        settings.bands.clear();
        for (Fields& band : fields.objects("bands")) {
            const double low = band.number("low_s", {0, kSecondsMax});
            settings.bands.push_back({low, band.number("high_s", {low, kSecondsMax})});
            band.no_others();
        }
        if (settings.bands.empty()) fields.refuse("bands", "expected at least one band");
    }
    settings.compute_s_per_sample =
        fields.number("compute_s_per_sample", {1e-9, 1e6}, settings.compute_s_per_sample);
    settings.split = fields.text("split", settings.split);
    if (settings.split != "classes" && settings.split != "dirichlet" && settings.split != "iid")
        fields.refuse("split", "expected classes, dirichlet or iid");
    settings.classes_per_client = static_cast<int>(
        fields.integer("classes_per_client", {1, 1000000}, settings.classes_per_client));
    settings.dirichlet_alpha =
        fields.number("dirichlet_alpha", {1e-3, 1e6}, settings.dirichlet_alpha);
    settings.quantity_skew = fields.number("quantity_skew", {0, 10}, settings.quantity_skew);
    settings.labels = fields.text("labels", settings.labels);
    if (settings.labels != "independent" && settings.labels != "tied")
        fields.refuse("labels", "expected independent or tied");
    settings.drift_every_s =
        fields.number("drift_every_s", {0, kSecondsMax}, settings.drift_every_s);
    settings.drift_share = fields.number("drift_share", {0, 1}, settings.drift_share);
    settings.failure_share = fields.number("failure_share", {0, 0.99}, settings.failure_share);
    settings.evaluate_every_s =
        fields.number("evaluate_every_s", {0.01, kSecondsMax}, settings.evaluate_every_s);
    settings.evaluation_samples = static_cast<int>(
        fields.integer("evaluation_samples", {0, 1 << 30}, settings.evaluation_samples));
    if (fields.has("targets_percent"))
        settings.targets_percent = fields.integers("targets_percent", {1, 100});
    fields.no_others();
}

OrderedJson simulation_json(const SimulationSettings& settings) {
    OrderedJson bands = OrderedJson::array();
    for (const LatencyBand& band : settings.bands)
        bands.push_back({{"low_s", band.low_s}, {"high_s", band.high_s}});
    return {{"bands", bands},
            {"compute_s_per_sample", settings.compute_s_per_sample},
            {"split", settings.split},
            {"classes_per_client", settings.classes_per_client},
            {"dirichlet_alpha", settings.dirichlet_alpha},
            {"quantity_skew", settings.quantity_skew},
            {"labels", settings.labels},
            {"drift_every_s", settings.drift_every_s},
            {"drift_share", settings.drift_share},
            {"failure_share", settings.failure_share},
            {"evaluate_every_s", settings.evaluate_every_s},
            {"evaluation_samples", settings.evaluation_samples},
            {"targets_percent", settings.targets_percent}};
}

}  // namespace ecopipe
