#include "planner/cost/cost_predictor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <set>

namespace ecopipe {
namespace {

constexpr std::size_t kLayersMin = 3;  // fewer measured layers say nothing about the error
constexpr std::size_t kKindMin = 3;    // fewer of a kind are not fitted by themselves

using Features = std::array<double, 3>;  // 1, FLOPs, bytes: of one micro-batch

struct Sample {
    std::string kind;
    Features features{};
    double reference_ms = 0;  // of the complete profile
    double ms = 0;            // measured; meaningless where it is to be predicted
};

// The unconstrained weighted least squares over the features in `used`; nothing when they are not
// independent.
std::optional<Features> solve(const std::vector<Sample>& samples, unsigned used, double floor_ms) {
    double a[3][4] = {};
    for (const Sample& sample : samples) {
        const double weight = 1 / std::max(sample.ms, floor_ms);
        for (std::size_t i = 0; i < 3; ++i)
            for (std::size_t j = 0; j < 4; ++j)
                a[i][j] +=
                    weight * weight * sample.features[i] * (j < 3 ? sample.features[j] : sample.ms);
    }
    for (std::size_t i = 0; i < 3; ++i) {  // an unused feature's coefficient is 0
        if ((used >> i & 1U) != 0) continue;
        for (std::size_t j = 0; j < 3; ++j) a[i][j] = a[j][i] = i == j ? 1 : 0;
        a[i][3] = 0;
    }
    Features out{};
    for (std::size_t i = 0; i < 3;
         ++i) {  // Gauss-Jordan; the matrix is positive semidefinite, so the diagonal is the pivot
        if (!(a[i][i] > 0)) return std::nullopt;
        const double pivot = a[i][i];
        for (double& value : a[i]) value /= pivot;
        for (std::size_t k = 0; k < 3; ++k) {
            const double factor = a[k][i];
            for (std::size_t j = 0; j < 4 && k != i; ++j) a[k][j] -= factor * a[i][j];
        }
    }
    for (std::size_t i = 0; i < 3; ++i) out[i] = a[i][3];
    return out;
}

double dot(const Features& a, const Features& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// Non-negative least squares: of all subsets of the three features, the best whose coefficients are
// not negative.
Features fit(const std::vector<Sample>& samples, double floor_ms) {
    Features best{};
    double least = std::numeric_limits<double>::infinity();
    for (unsigned used = 1; used < 8; ++used) {
        const auto solved = solve(samples, used, floor_ms);
        if (!solved || *std::min_element(solved->begin(), solved->end()) < 0) continue;
        double error = 0;
        for (const Sample& sample : samples) {
            const double relative =
                (dot(*solved, sample.features) - sample.ms) / std::max(sample.ms, floor_ms);
            error += relative * relative;
        }
        if (error < least * (1 - 1e-9)) {
            least = error;
            best = *solved;
        }
    }
    return best;
}

std::vector<Sample> of_kind(const std::vector<Sample>& samples, const std::string& kind) {
    std::vector<Sample> out;
    std::copy_if(samples.begin(), samples.end(), std::back_inserter(out),
                 [&](const Sample& sample) { return sample.kind == kind; });
    return out;
}

double mean_ratio(const std::vector<Sample>& samples) {
    double sum = 0;
    double count = 0;
    for (const Sample& sample : samples)
        if (sample.ms > 0 && sample.reference_ms > 0) {
            sum += std::log(sample.ms / sample.reference_ms);
            count += 1;
        }
    return count > 0 ? std::exp(sum / count) : 1;
}

enum class Predictor { kTogether, kByKind, kByReference, kFlopsAlone };

// Fitted on `samples` and applied to one more layer.
double predict_ms(Predictor predictor, const std::vector<Sample>& samples, const Sample& layer,
                  double floor_ms) {
    const std::vector<Sample> same = of_kind(samples, layer.kind);
    switch (predictor) {
        case Predictor::kTogether:
            return dot(fit(samples, floor_ms), layer.features);
        case Predictor::kByKind:
            return dot(fit(same.size() >= kKindMin ? same : samples, floor_ms), layer.features);
        case Predictor::kByReference:
            return mean_ratio(same.empty() ? samples : same) * layer.reference_ms;
        default: {
            double ms = 0;
            double flops = 0;
            for (const Sample& sample : samples) {
                ms += sample.ms;
                flops += sample.features[1];
            }
            return flops > 0 ? ms / flops * layer.features[1] : 0;
        }
    }
}

double floor_of(const std::vector<Sample>& samples) {
    double sum = 0;
    for (const Sample& sample : samples) sum += sample.ms;
    return std::max(1e-9, 1e-3 * sum / static_cast<double>(samples.size()));
}

// Mean relative error when each measured layer is predicted from the others.
double leave_one_out(Predictor predictor, const std::vector<Sample>& samples) {
    const double floor_ms = floor_of(samples);
    double error = 0;
    for (std::size_t i = 0; i < samples.size(); ++i) {
        std::vector<Sample> others = samples;
        others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
        const double predicted = predict_ms(predictor, others, samples[i], floor_ms);
        error += std::abs(predicted - samples[i].ms) / std::max(samples[i].ms, floor_ms);
    }
    return error / static_cast<double>(samples.size());
}

class Completion {
  public:
    Completion(const ModelProfile& partial, const ModelProfile& whole)
        : partial_(partial), whole_(whole) {}

    Result<Completed> run() {
        ECOPIPE_RETURN_IF_ERROR(match_layers());
        ECOPIPE_RETURN_IF_ERROR(choose_sizes());
        const Predictor predictor = choose_predictor();
        Completed out{whole_, report_};
        out.profile.device = partial_.device;
        out.profile.source = partial_.source;
        out.profile.threads = partial_.threads;
        out.profile.process_mib = partial_.process_mib;
        const double update_ratio = ratio_of_updates();
        for (std::size_t l = 0; l < whole_.layers.size(); ++l) {
            if (measured_[l] != nullptr) {
                out.profile.layers[l].timing = measured_[l]->timing;
                out.profile.layers[l].update_ms = measured_[l]->update_ms;
                out.profile.layers[l].stash_bytes_per_sample = measured_[l]->stash_bytes_per_sample;
                out.profile.layers[l].workspace_bytes_per_sample =
                    measured_[l]->workspace_bytes_per_sample;
                continue;
            }
            out.profile.layers[l].timing.clear();
            out.profile.layers[l].update_ms *= update_ratio;
            for (const int size : sizes_)
                out.profile.layers[l].timing.push_back(predicted(predictor, l, size));
            ++out.report.count;
        }
        return out;
    }

  private:
    Result<void> refused(const std::string& problem) const {
        return fail(ExitCode::kBadFile, fmt::format("{}: layers: {}", partial_.source, problem));
    }

    Result<void> match_layers() {
        measured_.assign(whole_.layers.size(), nullptr);
        std::size_t l = 0;
        for (const LayerProfile& layer : partial_.layers) {
            while (l < whole_.layers.size() && whole_.layers[l].name != layer.name) ++l;
            if (l == whole_.layers.size())
                return refused(fmt::format("expected the layers of {} in their order, found '{}'",
                                           whole_.source, layer.name));
            const LayerProfile& known = whole_.layers[l];
            if (layer.parameter_bytes != known.parameter_bytes ||
                layer.output_bytes_per_sample != known.output_bytes_per_sample)
                return refused(fmt::format("expected the sizes of {} for '{}', found others",
                                           whole_.source, layer.name));
            measured_[l++] = &layer;
        }
        if (partial_.layers.size() < kLayersMin)
            return refused(fmt::format(
                "expected at least {} measured layers to predict the others from, found {}",
                kLayersMin, partial_.layers.size()));
        return {};
    }

    // The measured sizes at which all measured layers, and the complete profile, have a time.
    Result<void> choose_sizes() {
        std::set<int> sizes;
        for (const LayerProfile& layer : partial_.layers)
            for (const LayerTiming& timing : layer.timing) sizes.insert(timing.micro_batch);
        for (const int size : sizes) {
            const auto there = [&](const LayerProfile& layer) {
                return timing_at(layer, size).has_value();
            };
            if (std::all_of(partial_.layers.begin(), partial_.layers.end(), there) &&
                std::all_of(whole_.layers.begin(), whole_.layers.end(), there))
                sizes_.push_back(size);
        }
        if (sizes_.empty())
            return refused(
                fmt::format("expected a micro-batch size that all layers share with {}, found none",
                            whole_.source));
        return {};
    }

    [[nodiscard]] bool has_flops() const {
        return std::all_of(
            whole_.layers.begin(), whole_.layers.end(),
            [](const LayerProfile& layer) { return layer.forward_flops_per_sample.has_value(); });
    }

    // What is known of a layer before it is measured, with the complete profile's forward or
    // backward time.
    [[nodiscard]] Sample sample(std::size_t l, int size, bool forward) const {
        const LayerProfile& layer = whole_.layers[l];
        const double input = static_cast<double>(
            l == 0 ? whole_.input_bytes_per_sample : whole_.layers[l - 1].output_bytes_per_sample);
        const double flops = has_flops() ? *layer.forward_flops_per_sample * size : 0;
        const double bytes = (input + static_cast<double>(layer.output_bytes_per_sample)) * size +
                             static_cast<double>(layer.parameter_bytes);
        const LayerTiming timing = *timing_at(layer, size);
        return {layer.kind, {1, flops, bytes}, forward ? timing.forward_ms : timing.backward_ms, 0};
    }

    [[nodiscard]] std::vector<Sample> samples(int size, bool forward) const {
        std::vector<Sample> out;
        for (std::size_t l = 0; l < measured_.size(); ++l) {
            if (measured_[l] == nullptr) continue;
            out.push_back(sample(l, size, forward));
            const LayerTiming timing = *timing_at(*measured_[l], size);
            out.back().ms = forward ? timing.forward_ms : timing.backward_ms;
        }
        return out;
    }

    [[nodiscard]] double mean_error(Predictor predictor) const {
        double error = 0;
        for (const int size : sizes_)
            for (const bool forward : {true, false})
                error += leave_one_out(predictor, samples(size, forward));
        return error / (2 * static_cast<double>(sizes_.size()));
    }

    Predictor choose_predictor() {
        report_.device = partial_.device;
        report_.flops_error = has_flops() ? mean_error(Predictor::kFlopsAlone) : 0;
        report_.error = std::numeric_limits<double>::infinity();
        Predictor best = Predictor::kTogether;
        for (const Predictor predictor :
             {Predictor::kTogether, Predictor::kByKind, Predictor::kByReference}) {
            const double error = mean_error(predictor);
            if (error >= report_.error) continue;
            report_.error = error;
            best = predictor;
        }
        return best;
    }

    [[nodiscard]] LayerTiming predicted(Predictor predictor, std::size_t l, int size) const {
        LayerTiming out;
        out.micro_batch = size;
        const auto of = [&](bool forward) {
            const std::vector<Sample> known = samples(size, forward);
            return std::max(
                0.0, predict_ms(predictor, known, sample(l, size, forward), floor_of(known)));
        };
        out.forward_ms = of(true);
        out.backward_ms = of(false);
        // The two gradients share the backward's time as they do on the complete profile.
        const LayerTiming whole = *timing_at(whole_.layers[l], size);
        if (splits(size) && whole.input_gradient_ms && whole.weight_gradient_ms) {
            const double ratio = whole.backward_ms > 0 ? out.backward_ms / whole.backward_ms : 0;
            out.input_gradient_ms = *whole.input_gradient_ms * ratio;
            out.weight_gradient_ms = *whole.weight_gradient_ms * ratio;
        }
        return out;
    }

    [[nodiscard]] bool splits(int size) const {
        return std::all_of(partial_.layers.begin(), partial_.layers.end(),
                           [&](const LayerProfile& layer) {
                               return timing_at(layer, size)->weight_gradient_ms.has_value();
                           });
    }

    [[nodiscard]] double ratio_of_updates() const {
        double here = 0;
        double there = 0;
        for (std::size_t l = 0; l < measured_.size(); ++l)
            if (measured_[l] != nullptr) {
                here += measured_[l]->update_ms;
                there += whole_.layers[l].update_ms;
            }
        return there > 0 ? here / there : 1;
    }

    const ModelProfile& partial_;
    const ModelProfile& whole_;
    std::vector<const LayerProfile*>
        measured_;  // of each layer of `whole_`; null where it is to be predicted
    std::vector<int> sizes_;
    PredictedLayers report_;
};

}  // namespace

Result<Completed> complete_profile(const ModelProfile& partial, const ModelProfile& whole) {
    return Completion(partial, whole).run();
}

}  // namespace ecopipe
