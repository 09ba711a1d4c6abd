#include "planner/schedule/v_shape.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "core/check.h"

namespace ecopipe {
namespace {

using enum ActionKind;

constexpr int kPeriod = 6;    // units of work that a micro-batch is for a device
constexpr int kWaitsMax = 6;  // of a block, in all

// Units from an action on one device to the same on the next.
struct Hops {
    int forward_there = 1;
    int forward_back = 1;
    int gradient_there = 1;  // of the second slices: back from the last stage
    int gradient_back = 1;
};
constexpr Hops kVHalfBlock{1, 2, 1, 2};
constexpr Hops kVMinBlock{1, 1, 1, 1};

// Beside what each needs, the forwards back, the first input gradients and the second may wait, so
// that no two actions of a device fall together.
using Waits = std::array<int, 3>;

// When a micro-batch's actions on a device begin.
struct Block {
    std::array<int, 2> forward{};  // by slice
    std::array<int, 2> input_gradient{};
    std::array<int, 2> weight_gradient{};
};

// Nothing when two of its actions fall together.
std::optional<Block> block_of(int device, int devices, const Hops& hops, const Waits& waits) {
    const int last = devices - 1;
    Block out;
    const int turned = last * hops.forward_there + 1 + waits[0];
    out.forward = {device * hops.forward_there, turned + (last - device) * hops.forward_back};
    const int lost = turned + last * hops.forward_back + 1 + waits[1];
    const int returned = lost + last * hops.gradient_there + 1 + waits[2];
    out.input_gradient = {returned + (last - device) * hops.gradient_back,
                          lost + device * hops.gradient_there};
    std::array<bool, kPeriod> taken{};
    const auto take = [&](int at) {
        return !std::exchange(taken[static_cast<std::size_t>(at % kPeriod)], true);
    };
    for (const int at :
         {out.forward[0], out.forward[1], out.input_gradient[1], out.input_gradient[0]})
        if (!take(at)) return std::nullopt;
    for (const std::size_t slice : {1U, 0U}) {
        int at = out.input_gradient[slice] + 1;
        while (!take(at)) ++at;
        out.weight_gradient[slice] = at;
    }
    return out;
}

// The most pairs that the device holds once the block is repeated.
int held_by(const Block& block) {
    int most = 0;
    for (int at = 0; at < kPeriod; ++at) {
        int held = 0;
        for (const std::size_t slice : {0U, 1U})
            for (int begun = block.forward[slice]; begun <= block.weight_gradient[slice]; ++begun)
                held += begun % kPeriod == at ? 1 : 0;
        most = std::max(most, held);
    }
    return most;
}

// With which the devices hold the least; of equals the least of them. Nothing where the block does
// not keep to `pairs`.
std::optional<Waits> waits_for(int devices, const Hops& hops, int pairs) {
    std::optional<Waits> best;
    int least = pairs + 1;
    for (int total = 0; total <= kWaitsMax; ++total)
        for (int first = 0; first <= total; ++first)
            for (int second = 0; second <= total - first; ++second) {
                const Waits waits{first, second, total - first - second};
                int most = 0;
                for (int device = 0; device < devices && most < least; ++device) {
                    const auto block = block_of(device, devices, hops, waits);
                    most = block ? std::max(most, held_by(*block)) : least;
                }
                if (most >= least) continue;
                least = most;
                best = waits;
            }
    return best;
}

ActionList repeated(const Block& block, int micro_batches) {
    std::vector<std::pair<int, Action>> timed;
    for (int m = 0; m < micro_batches; ++m)
        for (const int slice : {0, 1}) {
            const auto s = static_cast<std::size_t>(slice);
            const int begun = m * kPeriod;
            timed.emplace_back(begun + block.forward[s], Action{kForward, m, slice});
            timed.emplace_back(begun + block.input_gradient[s], Action{kInputGradient, m, slice});
            timed.emplace_back(begun + block.weight_gradient[s], Action{kWeightGradient, m, slice});
        }
    std::sort(timed.begin(), timed.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    ActionList out;
    for (const auto& [at, action] : timed) out.push_back(action);
    return out;
}

// Every device always does what is most urgent of what it can: input gradients, forwards while
// there is room, weight gradients. One place is kept for the forwards back: the oldest micro-batch
// can then always go on.
class Greedy {
  public:
    Greedy(const ScheduleShape& shape, int pairs)
        : shape_(shape),
          pairs_(pairs),
          devices_(static_cast<std::size_t>(shape.devices)),
          end_(static_cast<std::size_t>(4 * shape.devices) *
                   static_cast<std::size_t>(shape.micro_batches),
               -1) {}

    ActionList list() {
        const std::size_t whole = 6 * static_cast<std::size_t>(shape_.micro_batches);
        for (int now = 0;; ++now) {
            bool done = true;
            for (int d = 0; d < shape_.devices; ++d) {
                Device& device = devices_[static_cast<std::size_t>(d)];
                if (device.list.size() == whole) continue;
                done = false;
                if (const auto action = next(d, now)) begin(d, *action, now);
            }
            if (done) return devices_[static_cast<std::size_t>(shape_.device)].list;
        }
    }

  private:
    struct Device {
        ActionList list;
        int held = 0;
        std::array<int, 2> forwards{}, input_gradients{}, weight_gradients{};  // done, by slice
    };
    [[nodiscard]] int stage(int device, int slice) const {
        return slice == 0 ? device : 2 * shape_.devices - 1 - device;
    }
    // When the forward of a stage, or its input gradient, ends; -1: not yet known.
    [[nodiscard]] int& end(int stage, bool forward, int micro_batch) {
        return end_[(static_cast<std::size_t>(stage) * 2 + (forward ? 0 : 1)) *
                        static_cast<std::size_t>(shape_.micro_batches) +
                    static_cast<std::size_t>(micro_batch)];
    }
    [[nodiscard]] bool there(int at_stage, bool forward, int micro_batch, int now) {
        const int last = 2 * shape_.devices - 1;
        if (forward && at_stage == 0) return true;
        const int ended = forward            ? end(at_stage - 1, true, micro_batch)
                          : at_stage == last ? end(last, true, micro_batch)
                                             : end(at_stage + 1, false, micro_batch);
        return ended >= 0 && ended <= now;
    }
    std::optional<Action> next(int d, int now) {
        const Device& device = devices_[static_cast<std::size_t>(d)];
        for (const int slice : {1, 0}) {
            const auto s = static_cast<std::size_t>(slice);
            const int m = device.input_gradients[s];
            if (m < device.forwards[s] && there(stage(d, slice), false, m, now))
                return Action{kInputGradient, m, slice};
        }
        for (const int slice : {1, 0}) {
            const int m = device.forwards[static_cast<std::size_t>(slice)];
            const int room = slice == 1 ? pairs_ : pairs_ - 1;
            if (m < shape_.micro_batches && device.held < room &&
                there(stage(d, slice), true, m, now))
                return Action{kForward, m, slice};
        }
        for (const int slice : {1, 0}) {
            const auto s = static_cast<std::size_t>(slice);
            if (device.weight_gradients[s] < device.input_gradients[s])
                return Action{kWeightGradient, device.weight_gradients[s], slice};
        }
        return std::nullopt;
    }
    void begin(int d, const Action& action, int now) {
        Device& device = devices_[static_cast<std::size_t>(d)];
        const auto s = static_cast<std::size_t>(action.slice);
        device.list.push_back(action);
        if (action.kind == kWeightGradient) {
            ++device.weight_gradients[s];
            --device.held;
            return;
        }
        const bool forward = action.kind == kForward;
        end(stage(d, action.slice), forward, action.micro_batch) = now + 1;
        ++(forward ? device.forwards : device.input_gradients)[s];
        device.held += forward ? 1 : 0;
    }

    const ScheduleShape& shape_;
    int pairs_;
    std::vector<Device> devices_;
    std::vector<int> end_;
};

}  // namespace

ActionList v_actions(const ScheduleShape& shape, int least, int most) {
    ECOPIPE_CHECK(shape.micro_batches >= 1 && shape.device >= 0 && shape.device < shape.devices &&
                  least >= 2 && least <= most);
    for (int pairs = least; pairs <= most; ++pairs)
        for (const Hops& hops : {kVHalfBlock, kVMinBlock})
            if (const auto waits = waits_for(shape.devices, hops, pairs))
                return repeated(block_of(shape.device, shape.devices, hops, *waits).value(),
                                shape.micro_batches);
    return Greedy(shape, most).list();
}

}  // namespace ecopipe
