#include "stage_runtime/engine/model/zoo/modules.h"

#include <cmath>

namespace ecopipe::zoo {
namespace {

using Initialise = std::function<void(at::Tensor&, Rng&)>;

Initialise constant(float value) {
    return [value](at::Tensor& tensor, Rng&) { tensor.fill_(value); };
}

Initialise uniform(double bound) {
    return [bound](at::Tensor& tensor, Rng& rng) {
        float* data = tensor.data_ptr<float>();
        for (std::int64_t i = 0; i < tensor.numel(); ++i)
            data[i] = static_cast<float>(rng.uniform(-bound, bound));
    };
}

Initialise normal(double deviation) {
    return [deviation](at::Tensor& tensor, Rng& rng) {
        float* data = tensor.data_ptr<float>();
        for (std::int64_t i = 0; i < tensor.numel(); ++i)
            data[i] = static_cast<float>(deviation * rng.normal());
    };
}

at::Tensor parameter(Layer& layer, const std::string& name, at::IntArrayRef shape,
                     Initialise initialise) {
    at::Tensor tensor = at::empty(shape);
    layer.tensors.push_back({name, tensor, true, false, std::move(initialise)});
    return tensor;
}

at::Tensor buffer(Layer& layer, const std::string& name, at::Tensor tensor, float value) {
    layer.tensors.push_back({name, tensor, false, true, constant(value)});
    return tensor;
}

}  // namespace

Function conv2d(Layer& layer, const std::string& prefix, const ConvOptions& o) {
    const auto area = static_cast<double>(o.kernel * o.kernel);
    const double fan_in = static_cast<double>(o.in / o.groups) * area;
    const double fan_out =
        static_cast<double>(o.out) * area;  // as torchvision counts it, groups ignored
    const double bound = 1.0 / std::sqrt(fan_in);
    const auto weight =
        parameter(layer, prefix + ".weight", {o.out, o.in / o.groups, o.kernel, o.kernel},
                  o.fan_out_normal ? normal(std::sqrt(2.0 / fan_out)) : uniform(bound));
    at::Tensor bias;
    if (o.bias)
        bias = parameter(layer, prefix + ".bias", {o.out},
                         o.fan_out_normal ? constant(0) : uniform(bound));
    return [=](const at::Tensor& x, bool) {
        return at::conv2d(x, weight, bias, {o.stride, o.stride}, {o.padding, o.padding}, {1, 1},
                          o.groups);
    };
}

Function conv_bn(Layer& layer, const std::string& conv, const std::string& norm,
                 ConvOptions options) {
    options.padding = (options.kernel - 1) / 2;
    options.bias = false;
    const Function convolve = conv2d(layer, conv, options);
    const Function normalise = batch_norm2d(layer, norm, options.out);
    return [=](const at::Tensor& x, bool training) {
        return normalise(convolve(x, training), training);
    };
}

Function linear(Layer& layer, const std::string& prefix, std::int64_t in, std::int64_t out,
                const LinearStart& start) {
    const bool own = start.normal_std > 0 || start.uniform_bound > 0;
    const double bound = own ? start.uniform_bound : 1.0 / std::sqrt(static_cast<double>(in));
    const auto weight = parameter(layer, prefix + ".weight", {out, in},
                                  start.normal_std > 0 ? normal(start.normal_std) : uniform(bound));
    const auto bias = parameter(layer, prefix + ".bias", {out}, own ? constant(0) : uniform(bound));
    return [=](const at::Tensor& x, bool) { return at::linear(x, weight, bias); };
}

Function batch_norm2d(Layer& layer, const std::string& prefix, std::int64_t channels) {
    const std::size_t own = layer.tensors.size();
    const auto weight = parameter(layer, prefix + ".weight", {channels}, constant(1));
    const auto bias = parameter(layer, prefix + ".bias", {channels}, constant(0));
    constexpr double kMomentum = 0.1;
    const std::size_t first = layer.tensors.size();
    const auto mean = buffer(layer, prefix + ".running_mean", at::zeros({channels}), 0);
    const auto variance = buffer(layer, prefix + ".running_var", at::ones({channels}), 1);
    const auto tracked =
        buffer(layer, prefix + ".num_batches_tracked", at::zeros({}, at::kLong), 0);
    layer.statistics.push_back({first, kMomentum});
    layer.statistics.push_back({first + 1, kMomentum});
    layer.counters.push_back(first + 2);
    layer.norms.push_back({{own, own + 1}, {first, first + 1, first + 2}});
    return [=, &layer, evaluates = layer.norms.back().evaluates](const at::Tensor& x,
                                                                 bool layer_trains) {
        const bool training = layer_trains && !*evaluates;
        const auto normalise = [&](const at::Tensor& running_mean, const at::Tensor& running_var,
                                   double momentum) {
            return at::batch_norm(x, weight, bias, running_mean, running_var, training, momentum,
                                  1e-5, false);
        };
        if (!training) return normalise(mean, variance, kMomentum);
        TORCH_CHECK(x.numel() > x.size(1), "Expected more than 1 value per channel when training");
        if (layer.found != nullptr) return find_statistics(*layer.found, mean, variance, normalise);
        at::Tensor count = tracked;
        count.add_(1);
        return normalise(mean, variance, kMomentum);
    };
}

Function group_norm(Layer& layer, const std::string& prefix, std::int64_t groups,
                    std::int64_t channels) {
    const auto weight = parameter(layer, prefix + ".weight", {channels}, constant(1));
    const auto bias = parameter(layer, prefix + ".bias", {channels}, constant(0));
    return [=](const at::Tensor& x, bool) { return at::group_norm(x, groups, weight, bias); };
}

Function embedding(Layer& layer, const std::string& prefix, const EmbeddingOptions& o) {
    const auto draw = [o](at::Tensor& tensor, Rng& rng) {
        normal(o.deviation)(tensor, rng);
        if (o.padding >= 0) tensor[o.padding].zero_();
    };
    const auto weight = parameter(layer, prefix + ".weight", {o.rows, o.columns}, draw);
    return [=](const at::Tensor& ids, bool) { return at::embedding(weight, ids, o.padding); };
}

Function no_norm(Layer& layer, const std::string& prefix, std::int64_t channels) {
    const auto bias = parameter(layer, prefix + ".bias", {channels}, constant(0));
    const auto weight = parameter(layer, prefix + ".weight", {channels}, constant(1));
    return [=](const at::Tensor& x, bool) { return x * weight + bias; };
}

Function squeeze_excitation(Layer& layer, const std::string& prefix, std::int64_t channels,
                            std::int64_t squeezed, bool fan_out_normal) {
    const auto point = [&](const std::string& name, std::int64_t in, std::int64_t out) {
        return conv2d(layer, prefix + name,
                      {.in = in, .out = out, .kernel = 1, .fan_out_normal = fan_out_normal});
    };
    const Function squeeze = point(".fc1", channels, squeezed);
    const Function excite = point(".fc2", squeezed, channels);
    return [=](const at::Tensor& x, bool training) {
        const at::Tensor means = at::adaptive_avg_pool2d(x, {1, 1});
        return excite(at::silu(squeeze(means, training)), training).sigmoid() * x;
    };
}

Function dropout(Layer& layer, double probability) {
    layer.draws = true;
    return
        [=](const at::Tensor& x, bool training) { return at::dropout(x, probability, training); };
}

Function stochastic_depth(Layer& layer, double probability) {
    layer.draws = layer.draws || probability > 0;
    return [=](const at::Tensor& x, bool training) {
        if (!training || probability == 0) return x;
        std::vector<std::int64_t> size(static_cast<std::size_t>(x.dim()), 1);
        size[0] = x.size(0);
        const at::Tensor kept = at::empty(size, x.options()).bernoulli_(1 - probability);
        return x * kept.div_(1 - probability);
    };
}

Function relu() {
    return [](const at::Tensor& x, bool) { return at::relu(x); };
}

Function relu6() {
    return [](const at::Tensor& x, bool) { return at::hardtanh(x, 0, 6); };
}

Function silu() {
    return [](const at::Tensor& x, bool) { return at::silu(x); };
}

Function max_pool2d(const PoolOptions& o) {
    return [=](const at::Tensor& x, bool) {
        return at::max_pool2d(x, {o.kernel, o.kernel}, {o.stride, o.stride},
                              {o.padding, o.padding});
    };
}

Function global_average_pool() {
    return [](const at::Tensor& x, bool) { return at::adaptive_avg_pool2d(x, {1, 1}).flatten(1); };
}

Function flatten() {
    return [](const at::Tensor& x, bool) { return x.flatten(1); };
}

at::Tensor shuffle_channels(const at::Tensor& x, std::int64_t groups) {
    return x.view({x.size(0), groups, x.size(1) / groups, x.size(2), x.size(3)})
        .transpose(1, 2)
        .reshape(x.sizes());
}

Function chain(std::vector<Function> functions) {
    return [functions = std::move(functions)](const at::Tensor& input, bool training) {
        at::Tensor x = input;
        for (const Function& function : functions) x = function(x, training);
        return x;
    };
}

Tensors Composed::forward(const Tensors& inputs, bool training) {
    at::Tensor x = inputs[0];
    for (const Function& function : functions) x = function(x, training);
    return {residual ? at::add(inputs[0], x) : x};
}

Composed& add_layer(Layers& layers, std::string name, std::string kind) {
    auto layer = std::make_unique<Composed>();
    layer->name = std::move(name);
    layer->kind = std::move(kind);
    Composed& added = *layer;
    layers.push_back(std::move(layer));
    return added;
}

}  // namespace ecopipe::zoo
