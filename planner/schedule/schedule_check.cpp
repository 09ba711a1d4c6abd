#include "planner/schedule/schedule_check.h"

#include <fmt/format.h>

#include <algorithm>

#include "planner/schedule/schedule.h"

namespace ecopipe {
namespace {

using enum ActionKind;

// What has been seen of one (slice, micro-batch) on one device, as a set of bits.
enum Seen : unsigned char { kSeenF = 1, kSeenB = 2, kSeenI = 4, kSeenW = 8 };

unsigned char bit(ActionKind kind) {
    switch (kind) {
        case kForward:
            return kSeenF;
        case kBackward:
            return kSeenB;
        case kInputGradient:
            return kSeenI;
        default:
            return kSeenW;
    }
}

// Runs the lists without time: an action runs once its inputs are there, and its device then waits
// until the tensor it sends has room in the channel. Says where it stops if it cannot end.
class UntimedRun {
  public:
    UntimedRun(const std::vector<ActionList>& lists, const ScheduleFacts& facts, int capacity)
        : lists_(lists),
          facts_(facts),
          capacity_(capacity),
          next_(lists.size(), 0),
          owed_(lists.size()),
          stages_(static_cast<std::size_t>(facts.place.stages())),
          inputs_(stages_ * 2 * static_cast<std::size_t>(facts.micro_batches), false),
          held_(stages_ * 2, 0) {}

    // True when every list ended.
    bool finish() {
        bool moved = true;
        while (moved) {
            moved = false;
            for (std::size_t d = 0; d < lists_.size(); ++d)
                while (advance(d)) moved = true;
        }
        for (std::size_t d = 0; d < lists_.size(); ++d)
            if (next_[d] < lists_[d].size() || owed_[d].waiting) return false;
        return true;
    }
    // The device that stopped first in pipeline order, and the action it waits in.
    [[nodiscard]] std::size_t stopped_device() const {
        for (std::size_t d = 0; d < lists_.size(); ++d)
            if (next_[d] < lists_[d].size()) return d;
        return 0;
    }
    [[nodiscard]] const Action& stopped_action() const {
        const std::size_t d = stopped_device();
        return lists_[d][next_[d]];
    }

  private:
    struct Owed {
        bool waiting = false;
        std::size_t channel = 0;
        std::size_t input = 0;
    };

    // Channels and inputs belong to the receiving stage: 2 * stage for forwards, 2 * stage + 1 for
    // gradients.
    [[nodiscard]] std::size_t input(std::size_t channel, int micro_batch) const {
        return channel * static_cast<std::size_t>(facts_.micro_batches) +
               static_cast<std::size_t>(micro_batch);
    }
    bool deliver(std::size_t device) {
        Owed& owed = owed_[device];
        if (held_[owed.channel] >= capacity_) return false;
        ++held_[owed.channel];
        inputs_[owed.input] = true;
        owed.waiting = false;
        return true;
    }
    void owe(std::size_t device, std::size_t channel, int micro_batch) {
        owed_[device] = {true, channel, input(channel, micro_batch)};
        deliver(device);
    }
    bool advance(std::size_t device) {
        if (owed_[device].waiting) return deliver(device);
        if (next_[device] == lists_[device].size()) return false;
        const Action& action = lists_[device][next_[device]];
        const auto stage =
            static_cast<std::size_t>(facts_.place.stage(static_cast<int>(device), action.slice));
        const bool forward = action.kind == kForward;
        const bool local = action.kind == kWeightGradient || (forward && stage == 0) ||
                           (!forward && stage + 1 == stages_);
        const std::size_t channel = 2 * stage + (forward ? 0 : 1);
        if (!local) {
            if (!inputs_[input(channel, action.micro_batch)]) return false;
            --held_[channel];
        }
        ++next_[device];
        if (forward && stage + 1 < stages_) owe(device, 2 * (stage + 1), action.micro_batch);
        if (!forward && action.kind != kWeightGradient && stage > 0)
            owe(device, 2 * (stage - 1) + 1, action.micro_batch);
        return true;
    }

    const std::vector<ActionList>& lists_;
    const ScheduleFacts& facts_;
    int capacity_;
    std::vector<std::size_t> next_;
    std::vector<Owed> owed_;
    std::size_t stages_;
    std::vector<bool> inputs_;
    std::vector<int> held_;
};

// `slices`: of the list's device.
Result<void> check_list(const ActionList& list, const ScheduleFacts& facts, int slices,
                        const std::string& place) {
    const auto cells =
        static_cast<std::size_t>(facts.micro_batches) * static_cast<std::size_t>(slices);
    if (list.size() < 2 * cells)
        return fail(
            ExitCode::kBadFile,
            fmt::format("{}: expected a forward and a backward of each of {} micro-batches and {} "
                        "slices, found {} actions",
                        place, facts.micro_batches, slices, list.size()));
    std::vector<unsigned char> seen(cells, 0);
    for (const Action& action : list) {
        const auto refused = [&](const std::string& problem) {
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: {}: {}", place, action_text(action), problem));
        };
        if (action.slice >= slices)
            return refused(
                fmt::format("expected a slice below {}, found {}", slices, action.slice));
        unsigned char& bits =
            seen[static_cast<std::size_t>(action.micro_batch) * static_cast<std::size_t>(slices) +
                 static_cast<std::size_t>(action.slice)];
        const unsigned char now = bit(action.kind);
        if ((bits & now) != 0) return refused("expected once, found again");
        if (now != kSeenF && (bits & kSeenF) == 0)
            return refused("expected after its forward, found before it");
        if ((now == kSeenB && (bits & (kSeenI | kSeenW)) != 0) ||
            ((now & (kSeenI | kSeenW)) != 0 && (bits & kSeenB) != 0))
            return refused("expected B, or I and W, found both");
        if (now == kSeenW && (bits & kSeenI) == 0)
            return refused("expected after its input gradient, found before it");
        bits = static_cast<unsigned char>(bits | now);
    }
    for (std::size_t i = 0; i < cells; ++i) {
        const Action missing{(seen[i] & kSeenF) == 0   ? kForward
                             : (seen[i] & kSeenI) != 0 ? kWeightGradient
                                                       : kBackward,
                             static_cast<int>(i) / slices, static_cast<int>(i) % slices};
        if (seen[i] != (kSeenF | kSeenB) && seen[i] != (kSeenF | kSeenI | kSeenW))
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: expected {}, found nothing", place, action_text(missing)));
    }
    return {};
}

int peak_of_slice(const ActionList& list, int slice) {
    ActionList of_slice;
    std::copy_if(list.begin(), list.end(), std::back_inserter(of_slice),
                 [&](const Action& action) { return action.slice == slice; });
    return peak_in_flight(of_slice);
}

int least_capacity(const std::vector<ActionList>& lists, const ScheduleFacts& facts) {
    int low = 1;
    int high = facts.micro_batches;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (UntimedRun(lists, facts, middle).finish()) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

}  // namespace

Result<ScheduleFacts> check_schedule(const ScheduleText& schedule, const std::string& source) {
    ScheduleFacts facts;
    int slices = 0;
    for (const ActionList& list : schedule.devices)
        for (const Action& action : list) {
            facts.micro_batches = std::max(facts.micro_batches, action.micro_batch + 1);
            slices = std::max(slices, action.slice + 1);
            facts.split_backward |= action.kind == kInputGradient;
        }
    const auto devices = static_cast<int>(schedule.devices.size());
    facts.place = schedule.placement.value_or(Placement::cyclic(devices, std::max(1, slices)));
    if (facts.place.devices() != devices)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: place: expected {} devices, as many as have actions, found {}",
                                source, devices, facts.place.devices()));
    for (std::size_t d = 0; d < schedule.devices.size(); ++d)
        ECOPIPE_RETURN_IF_ERROR(check_list(schedule.devices[d], facts,
                                           facts.place.slices(static_cast<int>(d)),
                                           source + ": " + schedule.places[d]));
    UntimedRun free_run(schedule.devices, facts, facts.micro_batches);
    if (!free_run.finish())
        return fail(
            ExitCode::kBadFile,
            fmt::format(
                "{}: {}: {}: expected an order in which every action can run, found a deadlock",
                source, schedule.places[free_run.stopped_device()],
                action_text(free_run.stopped_action())));
    facts.channel_capacity = least_capacity(schedule.devices, facts);
    for (int stage = 0; stage < facts.place.stages(); ++stage) {
        const auto device = static_cast<std::size_t>(facts.place.device(stage));
        facts.peak_in_flight.push_back(
            peak_of_slice(schedule.devices[device], facts.place.slice(stage)));
    }
    return facts;
}

}  // namespace ecopipe
