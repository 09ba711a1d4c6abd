#include "tests/planner/reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>

namespace ecopipe::reference {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

struct Times {
    double f = 0, b = 0, u = 0;
};

const LayerRange* holds(const Segments& segments, int layer) {
    for (const LayerRange& segment : segments)
        if (segment.contains(layer)) return &segment;
    return nullptr;
}

Times times(const Instance& instance, const Stage& stage) {
    Times out;
    double again = 0;
    for (int l = stage.first; l <= stage.last; ++l) {
        const LayerProfile& layer = instance.profile.layers[static_cast<std::size_t>(l)];
        out.f += layer.timing[0].forward_ms;  // instances measure one size alone
        out.b += layer.timing[0].backward_ms;
        out.u += layer.update_ms;
        if (holds(stage.recomputed, l) != nullptr) again += layer.timing[0].forward_ms;
    }
    const double speed = instance.cluster.devices[static_cast<std::size_t>(stage.device)].speed;
    out.f /= speed;
    out.b /= speed;
    out.u /= speed;
    out.b += again / speed;
    return out;
}

int samples(const Instance& instance) {
    return (instance.batch + instance.micro_batches - 1) / instance.micro_batches;
}

double output_bytes(const Instance& instance, int layer) {
    const auto per_sample =
        layer < 0
            ? instance.profile.input_bytes_per_sample
            : instance.profile.layers[static_cast<std::size_t>(layer)].output_bytes_per_sample;
    return static_cast<double>(per_sample) * samples(instance);
}

// A polling simulator: again and again the earliest thing that can happen next is looked for among
// all devices and wires, without queues or event lists. Slow and plain.
class Polling {
  public:
    Polling(const Instance& instance, const std::vector<Stage>& stages,
            const std::vector<std::vector<std::pair<char, int>>>& order)
        : instance_(instance), stages_(stages), order_(order), M_(instance.micro_batches) {
        const std::size_t S = stages.size();
        next_.assign(S, 0);
        free_.assign(S, 0);
        act_.assign(S, std::vector<double>(static_cast<std::size_t>(M_), kNever));
        grad_ = act_;
        for (std::size_t s = 0; s < S; ++s) cost_.push_back(times(instance, stages[s]));
        const int portal = static_cast<int>(instance.cluster.portal);
        for (int m = 0; m < M_; ++m) {
            if (stages[0].device == portal) {
                act_[0][static_cast<std::size_t>(m)] = 0;
            } else {
                want(portal, stages[0].device, -1, 'F', m, 0, -1, 0);
            }
        }
    }

    double run() {
        while (true) {
            // The earliest action start and the earliest transfer start; transfers that start at
            // the same time as an action cannot influence it, but an action that *ends* at a
            // transfer's start may be ahead of it in the queue, so actions go first.
            double action_at = kNever;
            std::size_t who = 0;
            for (std::size_t s = 0; s < stages_.size(); ++s) {
                const double at = startable(s);
                if (at < action_at) {
                    action_at = at;
                    who = s;
                }
            }
            double transfer_at = kNever;
            std::size_t which = 0;
            for (std::size_t i = 0; i < waiting_.size(); ++i) {
                const double at = std::max(waiting_[i].ready, wire_free_[waiting_[i].wire]);
                const bool first =
                    at < transfer_at || (at == transfer_at && before(waiting_[i], waiting_[which]));
                if (first) {
                    transfer_at = at;
                    which = i;
                }
            }
            if (action_at == kNever && transfer_at == kNever) break;
            if (action_at <= transfer_at) {
                act(who, action_at);
            } else {
                carry(which, transfer_at);
            }
        }
        double end = 0;
        for (std::size_t s = 0; s < stages_.size(); ++s) {
            if (next_[s] != order_[s].size()) return kNever;  // deadlock
            end = std::max(end, free_[s] + cost_[s].u);
        }
        return end;
    }

  private:
    struct Wanted {
        double ready;
        int from_stage;
        char kind;
        int m;
        int wire;
        double occupy, latency;
        std::size_t to_stage;
    };
    // Which of two transfers of one wire goes first.
    static bool before(const Wanted& a, const Wanted& b) {
        if (a.ready != b.ready) return a.ready < b.ready;
        if (a.from_stage != b.from_stage) return a.from_stage < b.from_stage;
        if (a.kind != b.kind) return a.kind == 'F';
        return a.m < b.m;
    }
    void want(int from, int to, int layer, char kind, int m, double ready, int from_stage,
              std::size_t to_stage) {
        const Link& link =
            instance_.cluster.link(static_cast<std::size_t>(from), static_cast<std::size_t>(to));
        const auto nth = media_.emplace(link.medium, static_cast<int>(media_.size())).first->second;
        const int wire = link.medium.empty() ? 1000 * from + to : -1 - nth;
        wire_free_.emplace(wire, 0.0);
        waiting_.push_back({ready, from_stage, kind, m, wire,
                            output_bytes(instance_, layer) * 8 / (link.mbps * 1000),
                            link.latency_ms, to_stage});
    }
    double startable(std::size_t s) const {
        if (next_[s] == order_[s].size()) return kNever;
        const auto [kind, m] = order_[s][next_[s]];
        const double there = kind == 'F' ? act_[s][static_cast<std::size_t>(m)]
                                         : grad_[s][static_cast<std::size_t>(m)];
        return there == kNever ? kNever : std::max(free_[s], there);
    }
    void act(std::size_t s, double at) {
        const auto [kind, m] = order_[s][next_[s]++];
        free_[s] = at + (kind == 'F' ? cost_[s].f : cost_[s].b);
        if (kind == 'F' && s + 1 == stages_.size()) {
            grad_[s][static_cast<std::size_t>(m)] = free_[s];
        } else if (kind == 'F') {
            want(stages_[s].device, stages_[s + 1].device, stages_[s].last, 'F', m, free_[s],
                 static_cast<int>(s), s + 1);
        } else if (s > 0) {
            want(stages_[s].device, stages_[s - 1].device, stages_[s - 1].last, 'B', m, free_[s],
                 static_cast<int>(s), s - 1);
        }
    }
    void carry(std::size_t which, double at) {
        const Wanted w = waiting_[which];
        waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(which));
        wire_free_[w.wire] = at + w.occupy;
        auto& there = w.kind == 'F' ? act_ : grad_;
        there[w.to_stage][static_cast<std::size_t>(w.m)] = at + w.occupy + w.latency;
    }

    const Instance& instance_;
    const std::vector<Stage>& stages_;
    const std::vector<std::vector<std::pair<char, int>>>& order_;
    int M_;
    std::vector<std::size_t> next_;
    std::vector<double> free_;
    std::vector<std::vector<double>> act_, grad_;
    std::vector<Times> cost_;
    std::vector<Wanted> waiting_;
    std::map<int, double> wire_free_;
    std::map<std::string, int> media_;
};

void every_vector(const std::vector<std::vector<int>>& choices, std::vector<int>& K,
                  const std::function<void()>& visit) {
    if (K.size() == choices.size()) return visit();
    for (const int k : choices[K.size()]) {
        if (!K.empty() && k > K.back()) continue;
        K.push_back(k);
        every_vector(choices, K, visit);
        K.pop_back();
    }
}

void every_partition(const Instance& instance, std::vector<Stage>& stages,
                     const std::function<void()>& visit) {
    const int layers = static_cast<int>(instance.profile.layers.size());
    const int first = stages.empty() ? 0 : stages.back().last + 1;
    if (first == layers) return visit();
    for (int d = 0; d < static_cast<int>(instance.cluster.devices.size()); ++d) {
        if (std::any_of(stages.begin(), stages.end(),
                        [&](const Stage& s) { return s.device == d; }))
            continue;
        for (int last = first; last < layers; ++last) {
            stages.push_back({d, first, last});
            every_partition(instance, stages, visit);
            stages.pop_back();
        }
    }
}

void every_choice_of_segments(int layer, int last, Segments& chosen,
                              const std::function<void()>& visit) {
    if (layer > last) return visit();
    every_choice_of_segments(layer + 1, last, chosen, visit);
    for (int end = layer; end <= last; ++end) {
        chosen.push_back({layer, end});
        every_choice_of_segments(end + 1, last, chosen, visit);
        chosen.pop_back();
    }
}

// Those that take the least time of all with which k micro-batches fit; nothing where none does.
std::optional<Segments> least_segments(const Instance& instance, Stage stage, int k,
                                       Recomputation recomputation) {
    std::optional<Segments> best;
    double best_ms = kNever;
    every_choice_of_segments(stage.first, stage.last, stage.recomputed, [&] {
        const bool stages = recomputation == Recomputation::kStages;
        if (stages && !stage.recomputed.empty() &&
            stage.recomputed != Segments{{stage.first, stage.last}})
            return;
        if (peak_bytes(instance, stage, k) > budget_bytes(instance, stage.device)) return;
        const double ms = times(instance, stage).b;
        if (ms >= best_ms) return;
        best_ms = ms;
        best = stage.recomputed;
    });
    return best;
}

}  // namespace

double peak_bytes(const Instance& instance, const Stage& stage, int k) {
    double parameters = 0, stash = 0, workspace = 0;
    double held = 0;     // as its forward goes on
    double running = 0;  // the most while it or its backward runs
    double again = 0;    // the same where a segment's backward is
    const auto see = [&](double bytes) { running = std::max(running, bytes); };
    for (int l = stage.first; l <= stage.last; ++l) {
        const LayerProfile& layer = instance.profile.layers[static_cast<std::size_t>(l)];
        const double kept = static_cast<double>(layer.stash_bytes_per_sample) * samples(instance);
        const double working =
            static_cast<double>(layer.workspace_bytes_per_sample) * samples(instance);
        parameters += static_cast<double>(layer.parameter_bytes);
        stash += kept;
        workspace = std::max(workspace, working);
        const LayerRange* segment = holds(stage.recomputed, l);
        if (segment == nullptr) {
            held += kept;
            see(held + working);
            continue;
        }
        const bool begins = l == segment->first;
        again = kept + (begins ? held : again);
        if (begins) held += output_bytes(instance, l - 1);
        see(held + working + (begins ? 0 : output_bytes(instance, l - 1)));
        see(again + working);
    }
    see(held);
    const double state = parameters * (2 + instance.profile.optimizer_slots);
    if (stage.recomputed.empty()) return state + workspace + k * stash;
    if (stage.recomputed == Segments{{stage.first, stage.last}})
        return state + workspace + k * output_bytes(instance, stage.first - 1) + stash;
    return state + (k - 1) * held + running;
}

double budget_bytes(const Instance& instance, int device) {
    return (instance.cluster.devices[static_cast<std::size_t>(device)].memory_mib -
            instance.profile.process_mib) *
           1048576.0;
}

double step_ms(const Instance& instance, const std::vector<Stage>& stages,
               const std::vector<int>& K, bool gpipe) {
    const int M = instance.micro_batches;
    std::vector<std::vector<std::pair<char, int>>> order(stages.size());
    for (std::size_t s = 0; s < stages.size(); ++s) {
        const int k = gpipe ? M : std::min(K[s], M);
        for (int m = 0; m < k; ++m) order[s].emplace_back('F', m);
        for (int m = 0; m < M; ++m) {
            order[s].emplace_back('B', m);
            if (k + m < M) order[s].emplace_back('F', k + m);
        }
    }
    return Polling(instance, stages, order).run();
}

double brute_force_ms(const Instance& instance, bool gpipe, bool all_counts,
                      Recomputation recomputation) {
    const int M = instance.micro_batches;
    double best = kNever;
    std::map<std::array<int, 4>, std::optional<Segments>> known;
    const auto segments = [&](const Stage& stage, int k) -> const std::optional<Segments>& {
        const auto [at, added] = known.try_emplace({stage.device, stage.first, stage.last, k});
        if (added) at->second = least_segments(instance, stage, k, recomputation);
        return at->second;
    };
    std::vector<Stage> stages;
    every_partition(instance, stages, [&] {
        std::vector<std::vector<int>> choices;
        const int S = static_cast<int>(stages.size());
        for (int s = 0; s < S; ++s) {
            choices.emplace_back();
            for (int k = 1; k <= M; ++k)
                if (gpipe ? k == M : all_counts || k <= 2 * (S - s) + 1 || k == M)
                    choices.back().push_back(k);
            const Stage& stage = stages[static_cast<std::size_t>(s)];
            std::erase_if(choices.back(), [&](int k) { return !segments(stage, k).has_value(); });
            if (choices.back().empty()) return;
        }
        std::vector<int> K;
        every_vector(choices, K, [&] {
            std::vector<Stage> recomputing = stages;
            for (std::size_t s = 0; s < stages.size(); ++s)
                recomputing[s].recomputed = *segments(stages[s], K[s]);
            best = std::min(best, step_ms(instance, recomputing, K, gpipe));
        });
    });
    return best;
}

Instance random_instance(Rng& rng, const InstanceShape& shape) {
    Instance out;
    const auto between = [&](int low, int high) {
        return low + static_cast<int>(rng.below(static_cast<std::uint64_t>(high - low + 1)));
    };
    out.micro_batches = between(shape.micro_batches_min, shape.micro_batches_max);
    const int size = between(1, 4);
    out.batch = out.micro_batches * size -
                between(0, std::min(size, out.micro_batches) - 1);  // ceil(batch / M) == size
    out.profile.model = "random";
    out.profile.device = "d0";
    out.profile.source = "profile.json";
    out.profile.optimizer_slots = between(0, 2);
    out.profile.process_mib = rng.uniform(0, 1);
    out.profile.input_bytes_per_sample = rng.below(40000);
    const int layers = between(shape.layers_min, shape.layers_max);
    double bytes = 0;
    for (int l = 0; l < layers; ++l) {
        LayerProfile layer;
        layer.name = std::to_string(l);
        layer.parameter_bytes = rng.below(400000);
        layer.output_bytes_per_sample = rng.below(40000);
        layer.stash_bytes_per_sample = rng.below(300000);
        layer.workspace_bytes_per_sample = rng.below(100000);
        layer.update_ms = rng.uniform(0, 0.3);
        const double f = rng.uniform(0.1, 2);
        layer.timing.push_back({size, f, f * rng.uniform(1, 3), std::nullopt, std::nullopt});
        bytes += static_cast<double>(layer.parameter_bytes) * 4 +
                 static_cast<double>(layer.stash_bytes_per_sample) * size * 2;
        out.profile.layers.push_back(std::move(layer));
    }
    const int devices = between(shape.devices_min, shape.devices_max);
    out.cluster.name = "random";
    out.cluster.source = "cluster.yaml";
    for (int d = 0; d < devices; ++d) {
        Device device;
        device.name = fmt::format("d{}", d);
        device.speed = d == 0 ? 1.0 : rng.uniform(0.3, 2);
        device.memory_mib = out.profile.process_mib +
                            bytes / 1048576 * rng.uniform(shape.memory_low, shape.memory_high);
        out.cluster.devices.push_back(std::move(device));
    }
    out.cluster.portal = rng.below(static_cast<std::uint64_t>(devices));
    out.cluster.default_link = {rng.uniform(50, 1000), rng.uniform(0, 0.5), ""};
    for (std::size_t a = 0; a < out.cluster.devices.size(); ++a)
        for (std::size_t b = a + 1; b < out.cluster.devices.size(); ++b)
            if (rng.below(3) != 0)
                out.cluster.links[{a, b}] = {rng.uniform(50, 1000), rng.uniform(0, 0.5),
                                             shape.media && rng.below(2) == 0 ? "wifi" : ""};
    return out;
}

}  // namespace ecopipe::reference
