#include "planner/cost/graph_ways.h"

#include <algorithm>
#include <utility>

namespace ecopipe {
namespace {

// Adds up what goes from each stage to each other.
class LoadTable {
  public:
    explicit LoadTable(std::size_t stages)
        : width_(stages), cells_((stages + 1) * stages), used_(cells_.size(), 0) {}
    void add(int from, int to, double bytes, bool integer) {
        const std::size_t at = cell(from, to);
        used_[at] = 1;
        cells_[at].bytes += bytes;
        if (integer) cells_[at].integer_bytes += bytes;
    }
    [[nodiscard]] std::vector<StageLoad> by_from() const {
        std::vector<StageLoad> out;
        for (int from = -1; from < count(); ++from)
            for (int to = 0; to < count(); ++to) take(from, to, out);
        return out;
    }
    [[nodiscard]] std::vector<StageLoad> by_to() const {
        std::vector<StageLoad> out;
        for (int to = 0; to < count(); ++to)
            for (int from = 0; from < count(); ++from) take(from, to, out);
        return out;
    }

  private:
    [[nodiscard]] int count() const { return static_cast<int>(width_); }
    [[nodiscard]] std::size_t cell(int from, int to) const {
        return static_cast<std::size_t>(from + 1) * width_ + static_cast<std::size_t>(to);
    }
    void take(int from, int to, std::vector<StageLoad>& out) const {
        const std::size_t at = cell(from, to);
        if (used_[at] == 0) return;
        out.push_back({from, to, cells_[at].bytes, cells_[at].integer_bytes});
    }

    std::size_t width_;
    std::vector<StageLoad> cells_;
    std::vector<char> used_;
};

std::vector<int> stages_of_layers(const std::vector<StageSpan>& stages, int layers) {
    std::vector<int> out(static_cast<std::size_t>(layers), -1);
    for (std::size_t s = 0; s < stages.size(); ++s)
        std::fill(out.begin() + stages[s].first, out.begin() + stages[s].last + 1,
                  static_cast<int>(s));
    return out;
}

// Whether an earlier one of the users is on the device of `users[i]`.
bool device_has_it(const std::vector<StageSpan>& stages, const std::vector<ValueUser>& users,
                   std::size_t i) {
    const auto device = [&](const ValueUser& user) {
        return stages[static_cast<std::size_t>(user.stage)].device;
    };
    return std::any_of(users.begin(), users.begin() + static_cast<std::ptrdiff_t>(i),
                       [&](const ValueUser& user) { return device(user) == device(users[i]); });
}

}  // namespace

double waiting_bytes(const std::vector<StageLoad>& skips, std::size_t stage,
                     const std::vector<int>& in_flight) {
    double bytes = 0;
    for (const StageLoad& skip : skips)
        if (skip.to == static_cast<int>(stage))
            bytes += skip.bytes *
                     std::max(0, in_flight[static_cast<std::size_t>(skip.from)] - in_flight[stage]);
    return bytes;
}

GraphWays::GraphWays(ValueGraph flow, std::vector<double> bytes)
    : flow_(std::move(flow)),
      bytes_(std::move(bytes)),
      uses_(static_cast<std::size_t>(flow_.layers())) {
    for (std::size_t v = 0; v < flow_.values().size(); ++v) {
        int before = flow_.values()[v].producer;
        for (const int layer : flow_.values()[v].consumers) {
            if (layer == flow_.layers()) break;  // the loss is the last stage's own
            uses_[static_cast<std::size_t>(layer)].push_back({before, bytes_[v]});
            before = layer;
        }
    }
}

int GraphWays::producer_of(std::size_t value, const std::vector<int>& stage_of) const {
    const int layer = flow_.values()[value].producer;
    return layer < 0 ? -1 : stage_of[static_cast<std::size_t>(layer)];
}

// As PlanIndex finds them.
void GraphWays::find_users(std::size_t value, const std::vector<int>& stage_of, int producer,
                           std::vector<ValueUser>& users) const {
    users.clear();
    for (const int layer : flow_.values()[value].consumers) {
        if (layer == flow_.layers()) break;
        const int stage = stage_of[static_cast<std::size_t>(layer)];
        if (stage < 0 || stage == producer) continue;
        if (users.empty() || users.back().stage != stage) users.push_back({stage, 0});
        ++users.back().users;
    }
}

StageLoads GraphWays::loads(const std::vector<StageSpan>& stages, int portal) const {
    const std::vector<int> stage_of = stages_of_layers(stages, flow_.layers());
    LoadTable values(stages.size());
    LoadTable gradients(stages.size());
    std::vector<ValueUser> users;
    for (std::size_t v = 0; v < bytes_.size(); ++v) {
        const int producer = producer_of(v, stage_of);
        find_users(v, stage_of, producer, users);
        for (std::size_t i = 0; i < users.size(); ++i) {
            const int to = users[i].stage;
            if (producer < 0 && stages[static_cast<std::size_t>(to)].device == portal) continue;
            if (!device_has_it(stages, users, i))
                values.add(producer, to, bytes_[v], !flow_.values()[v].has_gradient);
        }
        if (!flow_.returns_gradient(static_cast<int>(v))) continue;
        for (std::size_t i = 0; i < users.size(); ++i)
            gradients.add(users[i].stage, gradient_receiver(users, i, producer), bytes_[v], false);
    }
    return {values.by_from(), gradients.by_to()};
}

std::vector<StageLoad> GraphWays::skips(const std::vector<StageSpan>& stages) const {
    const std::vector<int> stage_of = stages_of_layers(stages, flow_.layers());
    LoadTable table(stages.size());
    std::vector<ValueUser> users;
    for (std::size_t v = 0; v < bytes_.size(); ++v) {
        const int producer = producer_of(v, stage_of);
        if (producer < 0) continue;  // the portal sends an input when there is room for it
        find_users(v, stage_of, producer, users);
        for (std::size_t i = 0; i < users.size(); ++i)
            if (users[i].stage > producer + 1 && !device_has_it(stages, users, i))
                table.add(producer, users[i].stage, bytes_[v], false);
    }
    return table.by_from();
}

double GraphWays::entering_bytes(int first, int last) const {
    double bytes = 0;
    for (int layer = first; layer <= last; ++layer)
        for (const Use& use : uses_[static_cast<std::size_t>(layer)])
            if (use.before < first) bytes += use.bytes;
    return bytes;
}

}  // namespace ecopipe
