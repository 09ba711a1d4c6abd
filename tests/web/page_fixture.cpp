// Serves the page of a made-up run until stdin closes: `page_fixture STEPS`, for measuring what a
// long run costs the page; or of a made-up federation: `page_fixture federation`.
#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "core/wall_clock.h"
#include "fl_server/view/federation_page.h"
#include "orchestrator/view/run_view.h"
#include "orchestrator/view/view_document.h"
#include "transport/web/web_page.h"

namespace ecopipe {
namespace {

Plan made_up_plan() {
    Plan plan;
    plan.schedule = "1f1b";
    for (int i = 0; i < 4; ++i) {
        StagePlan stage;
        stage.device = fmt::format("device-{}", i);
        stage.first_layer = 5 * i;
        stage.last_layer = 5 * i + 4;
        stage.in_flight = 4 - i;
        plan.stages.push_back(stage);
    }
    return plan;
}

std::vector<DeviceReport> reports(int devices, int micro_batches) {
    std::vector<DeviceReport> all;
    for (int d = 0; d < devices; ++d) {
        DeviceReport report;
        report.device = fmt::format("device-{}", d);
        for (int m = 0; m < micro_batches; ++m) {
            const std::int64_t at = 1'000'000 * (d + 2 * m);
            report.actions.push_back({'F', 0, static_cast<std::uint32_t>(m), at, at + 600'000});
            report.actions.push_back(
                {'B', 0, static_cast<std::uint32_t>(m), at + 700'000, at + 1'700'000});
        }
        all.push_back(std::move(report));
    }
    return all;
}

int serve_federation() {
    FederationPage page("a made-up federation", unix_ms_now());
    FederationView view;
    view.strategy = "ecofl";
    view.phase = "running";
    view.rounds = 20;
    for (const char* name : {"north", "south", "<b id=planted>east</b>"}) {
        SiteView site;
        site.cluster = name;
        site.connected = true;
        site.group = view.sites.empty() ? 0 : 1;
        site.samples = 1000;
        site.latency_s = 2.5;
        view.sites.push_back(site);
    }
    page.update(view, unix_ms_now());
    for (std::uint64_t round = 1; round <= 12; ++round) {
        const auto x = static_cast<double>(round);
        view.version = round;
        view.recent = {{round, x, 0, 3, 3000, 1 - std::exp(-x / 4), std::exp(-x / 4), 0}};
        if (round == 6) view.sites[1].group = -1;
        if (round == 8) {
            ++view.sites[2].rejections;
            view.sites[2].reason = "expected finite numbers, <img src=x onerror=alert(1)>";
        }
        page.update(view, unix_ms_now());
    }
    auto server = WebServer::start(
        {"127.0.0.1", 0}, web_page_routes([&] { return page.document(unix_ms_now()).dump(); },
                                          [&] { return std::to_string(page.revision()); }));
    if (!server) return 1;
    fmt::print("{}\n", (*server)->url());
    std::fflush(stdout);
    while (std::getchar() != EOF) {
    }
    return 0;
}

int serve(std::uint64_t steps) {
    constexpr int kDevices = 4;
    RunView view(unix_ms_now);
    view.begin("a made-up run");
    view.plan_in_force(made_up_plan(), "");
    const auto report = reports(kDevices, 8);
    const auto advance = [&](std::uint64_t step) {
        OrderedJson stages = OrderedJson::array();
        for (const DeviceReport& device : report)
            stages.push_back({{"device", device.device},
                              {"busy_ms", 8.0},
                              {"wait_ms", 2.0},
                              {"peak_bytes", 64 << 20},
                              {"sent_bytes", 100000}});
        const auto x = static_cast<double>(step);
        view.metrics_line({{"step", step},
                           {"loss", 2.3 * std::exp(-x / 20000) + 0.05 * std::sin(x)},
                           {"step_ms", 12.5},
                           {"samples_per_s", 5120.0},
                           {"stages", std::move(stages)}});
        view.trace(step, report);
        if (step % 500 == 0)
            view.metrics_line({{"epoch", x / 500},
                               {"split", "test"},
                               {"loss", 2.3 * std::exp(-x / 20000)},
                               {"accuracy", 1 - 0.9 * std::exp(-x / 20000)}});
    };
    for (std::uint64_t step = 1; step <= steps; ++step) advance(step);
    view.progress(steps, steps + 1000, 1, 5120);
    auto server = WebServer::start(
        {"127.0.0.1", 0},
        web_page_routes([&] { return view_document(view.snapshot(), unix_ms_now()).dump(); },
                        [&] { return std::to_string(view.revision()); }));
    if (!server) {
        fmt::print(stderr, "{}\n", server.error().message);
        return 1;
    }
    fmt::print("{}\n", (*server)->url());
    std::fflush(stdout);
    // Each line on stdin is one more step.
    for (int byte; (byte = std::getchar()) != EOF;)
        if (byte == '\n') advance(++steps);
    return 0;
}

}  // namespace
}  // namespace ecopipe

int main(int argc, char** argv) {
    if (argc > 1 && std::string_view(argv[1]) == "federation") return ecopipe::serve_federation();
    return ecopipe::serve(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1000);
}
