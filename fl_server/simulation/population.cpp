#include "fl_server/simulation/population.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"
#include "core/random.h"

namespace ecopipe {
namespace {

// What draws are for.
enum PopulationDraw : std::uint64_t { kShuffle = 1, kSkew, kDirichlet, kBands, kDelay, kDrift };

using Indices = std::vector<std::int64_t>;

// Cuts `values` into parts in proportion to the weights, each at least one where there are enough.
std::vector<Indices> cut(const Indices& values, const std::vector<double>& weights) {
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    const auto n = static_cast<double>(values.size());
    std::vector<Indices> parts(weights.size());
    double before = 0;
    std::size_t begin = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        before += weights[i];
        const std::size_t left = weights.size() - i - 1;
        auto end = static_cast<std::size_t>(std::llround(n * before / sum));
        if (values.size() >= weights.size()) end = std::clamp(end, begin + 1, values.size() - left);
        end = i + 1 == weights.size() ? values.size() : std::max(begin, end);
        parts[i].assign(values.begin() + static_cast<std::ptrdiff_t>(begin),
                        values.begin() + static_cast<std::ptrdiff_t>(end));
        begin = end;
    }
    return parts;
}

// Marsaglia and Tsang, "A simple method for generating gamma variables" (2000).
double gamma(Rng& rng, double shape) {
    if (shape < 1) return gamma(rng, shape + 1) * std::pow(1 - rng.uniform(), 1 / shape);
    const double d = shape - 1.0 / 3;
    const double c = 1 / std::sqrt(9 * d);
    for (;;) {
        const double x = rng.normal();
        const double v = std::pow(1 + c * x, 3);
        if (v > 0 && std::log(1 - rng.uniform()) < 0.5 * x * x + d - d * v + d * std::log(v))
            return d * v;
    }
}

std::vector<double> skewed_weights(std::size_t clients, double sigma, std::uint64_t seed) {
    std::vector<double> weights(clients, 1);
    for (std::size_t u = 0; u < clients; ++u)
        weights[u] = std::exp(sigma * Rng(keyed_seed(seed, {kSkew, u})).normal());
    return weights;
}

void by_classes(const std::vector<Indices>& of_class, const std::vector<double>& weights,
                int per_client, std::vector<VirtualClient>& clients) {
    const std::size_t classes = of_class.size();
    ECOPIPE_CHECK(classes > 0);
    for (std::size_t c = 0; c < classes; ++c) {
        std::vector<std::size_t> owners;
        std::vector<double> shares;
        for (std::size_t u = 0; u < clients.size(); ++u) {
            const std::size_t turn = (c + classes - u % classes) % classes;
            if (turn >= static_cast<std::size_t>(per_client)) continue;
            owners.push_back(u);
            shares.push_back(weights[u]);
        }
        if (owners.empty()) continue;
        const auto parts = cut(of_class[c], shares);
        for (std::size_t i = 0; i < owners.size(); ++i) {
            Indices& samples = clients[owners[i]].samples;
            samples.insert(samples.end(), parts[i].begin(), parts[i].end());
        }
    }
    for (std::size_t u = 0; u < clients.size(); ++u)
        clients[u].main_label = static_cast<int>(u % classes);
}

// Each client draws a mixture of classes; its samples are taken from what is left of each class,
// and where a class has run out, from the one with most left.
void by_dirichlet(std::vector<Indices> of_class, const std::vector<double>& weights, double alpha,
                  std::uint64_t seed, std::vector<VirtualClient>& clients) {
    std::size_t total = 0;
    for (const Indices& indices : of_class) total += indices.size();
    Indices places(total);
    const auto sizes = cut(places, weights);
    for (std::size_t u = 0; u < clients.size(); ++u) {
        Rng rng(keyed_seed(seed, {kDirichlet, u}));
        std::vector<double> mixture;
        for (std::size_t c = 0; c < of_class.size(); ++c) mixture.push_back(gamma(rng, alpha));
        const double sum = std::accumulate(mixture.begin(), mixture.end(), 0.0);
        for (std::size_t i = 0; i < sizes[u].size(); ++i) {
            double draw = rng.uniform() * sum;
            std::size_t c = 0;
            while (c + 1 < mixture.size() && draw >= mixture[c]) draw -= mixture[c++];
            if (of_class[c].empty())
                c = static_cast<std::size_t>(
                    std::max_element(
                        of_class.begin(), of_class.end(),
                        [](const Indices& a, const Indices& b) { return a.size() < b.size(); }) -
                    of_class.begin());
            clients[u].samples.push_back(of_class[c].back());
            of_class[c].pop_back();
        }
    }
}

void place_in_bands(std::size_t bands, bool tied, std::uint64_t seed,
                    std::vector<VirtualClient>& clients) {
    std::vector<std::size_t> order(clients.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    if (tied) {
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            return clients[a].main_label < clients[b].main_label;
        });
    } else {
        Rng(keyed_seed(seed, {kBands})).shuffle(order);
    }
    for (std::size_t i = 0; i < order.size(); ++i)
        clients[order[i]].band = i * bands / order.size();
}

}  // namespace

Result<Population> Population::create(const std::vector<std::int64_t>& labels, int classes,
                                      std::size_t clients, std::int64_t local_epochs,
                                      const SimulationSettings& settings, std::uint64_t seed) {
    if (labels.size() < clients)
        return fail(ExitCode::kUsage, fmt::format("--clients: {} clients, but only {} samples",
                                                  clients, labels.size()));
    if (classes == 0)
        return fail(ExitCode::kUsage, "--data: expected classes as targets, found numbers");
    const auto class_count = static_cast<std::size_t>(classes);
    if (settings.split == "classes" && settings.classes_per_client > classes)
        return fail(ExitCode::kUsage,
                    fmt::format("--classes-per-client: expected at most the data's {}, found {}",
                                classes, settings.classes_per_client));
    std::vector<Indices> of_class(class_count);
    for (std::size_t i = 0; i < labels.size(); ++i)
        of_class[static_cast<std::size_t>(labels[i])].push_back(static_cast<std::int64_t>(i));
    for (std::size_t c = 0; c < class_count; ++c)
        Rng(keyed_seed(seed, {kShuffle, c})).shuffle(of_class[c]);

    Population population;
    population.settings_ = settings;
    population.seed_ = seed;
    auto& all = population.clients_;
    all.resize(clients);
    const std::vector<double> weights = skewed_weights(clients, settings.quantity_skew, seed);
    if (settings.split == "classes") {
        by_classes(of_class, weights, settings.classes_per_client, all);
    } else if (settings.split == "dirichlet") {
        by_dirichlet(of_class, weights, settings.dirichlet_alpha, seed, all);
    } else {
        Indices together(labels.size());
        std::iota(together.begin(), together.end(), std::int64_t{0});
        Rng(keyed_seed(seed, {kShuffle})).shuffle(together);
        const auto parts = cut(together, weights);
        for (std::size_t u = 0; u < clients; ++u) all[u].samples = parts[u];
    }
    for (std::size_t u = 0; u < clients; ++u) {
        VirtualClient& client = all[u];
        client.name = fmt::format("client-{:0{}}", u, std::to_string(clients - 1).size());
        if (client.samples.empty())
            return fail(ExitCode::kUsage,
                        client.name + " has no sample: fewer clients, or less skew");
        std::sort(client.samples.begin(), client.samples.end());
        client.label_counts.assign(class_count, 0);
        for (const std::int64_t i : client.samples)
            ++client.label_counts[static_cast<std::size_t>(labels[static_cast<std::size_t>(i)])];
        if (settings.split != "classes")
            client.main_label = static_cast<int>(
                std::max_element(client.label_counts.begin(), client.label_counts.end()) -
                client.label_counts.begin());
        client.compute_s = static_cast<double>(client.samples.size()) *
                           static_cast<double>(local_epochs) * settings.compute_s_per_sample;
    }
    place_in_bands(settings.bands.size(), settings.labels == "tied", seed, all);
    for (std::size_t u = 0; u < clients; ++u) population.first_band_.push_back(all[u].band);
    population.restore(0);
    return population;
}

void Population::draw_delay(std::size_t u, std::uint64_t n) {
    const LatencyBand& band = settings_.bands[clients_[u].band];
    clients_[u].delay_s = Rng(keyed_seed(seed_, {kDelay, u, n})).uniform(band.low_s, band.high_s);
}

void Population::drift(std::uint64_t n) {
    for (std::size_t u = 0; u < clients_.size(); ++u) {
        Rng rng(keyed_seed(seed_, {kDrift, u, n}));
        if (rng.uniform() >= settings_.drift_share) continue;
        clients_[u].band = rng.below(settings_.bands.size());
        draw_delay(u, n);
    }
}

void Population::restore(std::uint64_t drifts) {
    for (std::size_t u = 0; u < clients_.size(); ++u) {
        clients_[u].band = first_band_[u];
        draw_delay(u, 0);
    }
    for (std::uint64_t n = 1; n <= drifts; ++n) drift(n);
}

ClientFacts Population::facts(std::size_t u) const {
    const VirtualClient& client = clients_[u];
    return {client.name, client.latency_s(), client.samples.size(), client.label_counts};
}

}  // namespace ecopipe
