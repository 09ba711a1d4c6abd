#pragma once
// How a federation turns updates into the next model: one interface, one file a strategy under
// strategies/.

#include <memory>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"

namespace ecopipe {

// A complete, admitted update.
struct AdmittedUpdate {
    std::string cluster;
    std::uint64_t base_version = 0;
    std::uint64_t samples = 0;  // > 0
    TensorMap weights;          // the model's tensors, in its order
};

// Methods are called by one thread. Results must not depend on the order in which updates arrived.
class RoundAverage {
  public:
    virtual ~RoundAverage() = default;
    [[nodiscard]] virtual std::string name() const = 0;
    // The next global model from the current one and one round's updates, at least one. Floating
    // buffers are averaged like weights; integer buffers take the maximum.
    [[nodiscard]] virtual TensorMap aggregate(const TensorMap& global,
                                              std::vector<AdmittedUpdate> updates) const = 0;
};

// Errors: kUsage for an unknown name, listing those there are.
[[nodiscard]] Result<std::unique_ptr<RoundAverage>> make_round_average(const std::string& name);
[[nodiscard]] std::unique_ptr<RoundAverage> make_fed_avg();

}  // namespace ecopipe
