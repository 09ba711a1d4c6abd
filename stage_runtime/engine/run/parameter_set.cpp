#include "stage_runtime/engine/run/parameter_set.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <utility>

#include "core/check.h"

namespace ecopipe {

ParameterSet::ParameterSet(const Layers& layers, LayerRange range, const Optimizer& optimizer)
    : range_(range), users_of_layer_(layers.size()) {
    std::map<std::string, std::size_t> by_first_name;
    std::map<std::string, std::size_t> shared_user;  // of twins: tensors with several names
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const int layer = range.first + static_cast<int>(i);
        for (LayerTensor& tensor : layers[i]->tensors) {
            if (tensor.buffer || !tensor.trainable || tensor.lent) continue;
            const auto [it, fresh] = by_first_name.emplace(tensor.first_name(), parameters_.size());
            if (!fresh) {
                parameters_[it->second].names.push_back(tensor.name);
                continue;
            }
            tensor.tensor.requires_grad_(true);
            parameters_.push_back({i,
                                   {tensor.name},
                                   tensor.tensor,
                                   {},
                                   optimizer.fresh_state(tensor.tensor.detach())});
            shared_user[tensor.first_name()] = users_.size();
            users_of_parameter_.push_back({users_.size()});
            users_.push_back({tensor.first_name(), layer, {}});
        }
        for (const LayerTensor* tensor : distinct_trainable(*layers[i])) {
            const std::string& name = tensor->first_name();
            if (!tensor->lent) {
                users_of_layer_[i].push_back(shared_user.at(name));
                continue;
            }
            users_of_layer_[i].push_back(users_.size());
            const auto home = by_first_name.find(name);
            if (home != by_first_name.end()) {
                auto& users = users_of_parameter_[home->second];
                users.insert(users.begin(), users_.size());
            } else {
                at::Tensor value = tensor->tensor;
                value.requires_grad_(true);
                if (borrowed(name) == nullptr) borrowed_.emplace_back(name, value);
            }
            users_.push_back({name, layer, {}});
        }
    }
}

void ParameterSet::tie(const std::string& name, int home, int user) {
    if (!range_.contains(home) || range_.contains(user)) return;
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
        if (parameters_[p].names.front() != name) continue;
        auto& users = users_of_parameter_[p];
        const auto place = std::find_if(users.begin(), users.end(), [&](std::size_t other) {
            return users_[other].layer < user;
        });
        users.insert(place, users_.size());
        users_.push_back({name, user, {}});
    }
}

void ParameterSet::add(std::size_t layer, const Tensors& found) {
    const at::NoGradGuard no_grad;
    const std::vector<std::size_t>& users = users_of_layer_[layer];
    ECOPIPE_CHECK(found.size() == users.size());
    for (std::size_t i = 0; i < users.size(); ++i) {
        if (!found[i].defined()) continue;
        at::Tensor& sum = users_[users[i]].sum;
        if (sum.defined())
            sum.add_(found[i]);
        else
            sum = found[i].contiguous();
    }
}

void ParameterSet::add_up() {
    const at::NoGradGuard no_grad;
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
        at::Tensor& gradient = parameters_[p].gradient;
        gradient = at::Tensor();
        const std::vector<std::size_t>& users = users_of_parameter_[p];
        for (const std::size_t user : users) {
            // A user that found nothing counts as zeros, wherever it is.
            at::Tensor sum = users_[user].sum;
            if (!sum.defined() && users.size() > 1) sum = at::zeros_like(parameters_[p].value);
            if (sum.defined()) gradient = gradient.defined() ? at::add(gradient, sum) : sum;
        }
    }
}

void ParameterSet::discard() {
    for (Parameter& parameter : parameters_) parameter.gradient = at::Tensor();
    for (User& user : users_) user.sum = at::Tensor();
}

std::size_t ParameterSet::user_of(const std::string& name, int layer) const {
    const auto found = std::find_if(users_.begin(), users_.end(), [&](const User& user) {
        return user.layer == layer && user.name == name;
    });
    ECOPIPE_CHECK(found != users_.end());
    return static_cast<std::size_t>(found - users_.begin());
}

at::Tensor ParameterSet::found_by(const std::string& name, int user) {
    const at::Tensor& sum = users_[user_of(name, user)].sum;
    const at::NoGradGuard no_grad;
    return sum.defined() ? sum : at::zeros_like(*borrowed(name));
}

void ParameterSet::bring(const std::string& name, int user, at::Tensor gradient) {
    users_[user_of(name, user)].sum = std::move(gradient);
}

at::Tensor* ParameterSet::borrowed(const std::string& name) {
    for (auto& [known, value] : borrowed_)
        if (known == name) return &value;
    return nullptr;
}

}  // namespace ecopipe
