#include "fl_server/round_average.h"

#include <algorithm>

namespace ecopipe {
namespace {

// McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data"
// (AISTATS 2017), Algorithm 1: w <- sum over k of (n_k / n) w_k. Summed in double in the clusters'
// name order, so arrival order is no input; the one rounding to float per element is the last.
class FedAvg : public RoundAverage {
  public:
    std::string name() const override { return "fedavg"; }

    TensorMap aggregate(const TensorMap& global,
                        std::vector<AdmittedUpdate> updates) const override {
        std::sort(
            updates.begin(), updates.end(),
            [](const AdmittedUpdate& a, const AdmittedUpdate& b) { return a.cluster < b.cluster; });
        double total = 0;
        for (const AdmittedUpdate& update : updates) total += static_cast<double>(update.samples);
        TensorMap next;
        for (std::size_t t = 0; t < global.size(); ++t) {
            const HostTensor& like = global[t].tensor;
            next.push_back({global[t].name, HostTensor::allocate(like.dtype(), like.shape())});
            HostTensor& out = next.back().tensor;
            switch (like.dtype()) {
                case DType::kF32:
                    average<float>(out, updates, t, total);
                    break;
                case DType::kF64:
                    average<double>(out, updates, t, total);
                    break;
                case DType::kI64:
                    maximum<std::int64_t>(out, updates, t);
                    break;
                case DType::kI32:
                    maximum<std::int32_t>(out, updates, t);
                    break;
                case DType::kI16:
                    maximum<std::int16_t>(out, updates, t);
                    break;
                case DType::kI8:
                    maximum<std::int8_t>(out, updates, t);
                    break;
                case DType::kU8:
                case DType::kBool:
                    maximum<std::uint8_t>(out, updates, t);
                    break;
                // Half-precision weights are refused before a federation starts.
                case DType::kF16:
                case DType::kBF16:
                    out = updates.front().weights[t].tensor;
                    break;
            }
        }
        return next;
    }

  private:
    template <class T>
    static void average(HostTensor& out, const std::vector<AdmittedUpdate>& updates, std::size_t t,
                        double total) {
        std::vector<double> sums(static_cast<std::size_t>(out.elements()), 0.0);
        for (const AdmittedUpdate& update : updates) {
            const double share = static_cast<double>(update.samples) / total;
            const auto values = update.weights[t].tensor.as<T>();
            for (std::size_t i = 0; i < sums.size(); ++i)
                sums[i] += share * static_cast<double>(values[i]);
        }
        std::transform(sums.begin(), sums.end(), out.as<T>().begin(),
                       [](double sum) { return static_cast<T>(sum); });
    }

    template <class T>
    static void maximum(HostTensor& out, const std::vector<AdmittedUpdate>& updates,
                        std::size_t t) {
        const auto target = out.as<T>();
        const auto first = updates.front().weights[t].tensor.as<T>();
        std::copy(first.begin(), first.end(), target.begin());
        for (const AdmittedUpdate& update : updates) {
            const auto values = update.weights[t].tensor.as<T>();
            for (std::size_t i = 0; i < target.size(); ++i)
                target[i] = std::max(target[i], values[i]);
        }
    }
};

}  // namespace

std::unique_ptr<RoundAverage> make_fed_avg() { return std::make_unique<FedAvg>(); }

}  // namespace ecopipe
