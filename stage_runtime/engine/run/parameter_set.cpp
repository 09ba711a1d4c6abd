#include "stage_runtime/engine/run/parameter_set.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <utility>

#include "core/check.h"
#include "core/tensor_memory.h"
#include "stage_runtime/engine/model/tensor_bridge.h"

namespace ecopipe {
namespace {

// In place, unless somebody else holds the memory: autograd hands one and the same tensor out as
// the gradient of all that were only added, a layer's input among them.
void add_to(at::Tensor& sum, const at::Tensor& found) {
    if (sum.use_count() == 1 && sum.storage().use_count() == 1)
        sum.add_(found);
    else
        sum = at::add(sum, found);
}

}  // namespace

ParameterSet::ParameterSet(const Layers& layers, LayerRange range, const Optimizer& optimizer,
                           SumTree tree)
    : range_(range), tree_(tree), users_of_layer_(layers.size()) {
    const MemoryScope memory(MemoryUse::kMoments);
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
            users_.push_back({tensor.first_name(), layer, tensor.tensor});
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
            users_.push_back({name, layer, tensor->tensor});
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
        users_.push_back({name, user, parameters_[p].value});
    }
}

void ParameterSet::add(std::size_t layer, std::uint32_t micro_batch, const Tensors& found) {
    const at::NoGradGuard no_grad;
    const MemoryScope memory(MemoryUse::kGradients);
    const std::vector<std::size_t>& users = users_of_layer_[layer];
    ECOPIPE_CHECK(found.size() == users.size());
    const auto leaf = static_cast<std::size_t>(tree_.leaf(tree_.block_of(micro_batch)));
    for (std::size_t i = 0; i < users.size(); ++i) {
        if (!found[i].defined()) continue;
        User& user = users_[users[i]];
        user.sums.resize(static_cast<std::size_t>(tree_.nodes()));
        std::optional<at::Tensor>& sum = user.sums[leaf];
        if (sum) {
            add_to(*sum, found[i]);
        } else {
            // Without what it is a view of: that would count as somebody else, and the next sum
            // would be a tensor of its own.
            sum = found[i].contiguous().variable_data();
            name_memory(*sum, MemoryUse::kGradients);
        }
    }
}

at::Tensor ParameterSet::sum_at(User& user, int node) {
    if (user.sums.empty()) return {};
    const at::NoGradGuard no_grad;
    const MemoryScope memory(MemoryUse::kGradients);
    const auto add = [](at::Tensor left, const at::Tensor& right) {
        add_to(left, right);
        return left;
    };
    return fold_sum(tree_, user.sums, node, add).value_or(at::Tensor());
}

const at::Tensor& ParameterSet::total_of(User& user) {
    if (!user.sums.empty()) {
        user.total = sum_at(user, 0);
        user.sums.clear();
    }
    return user.total;
}

std::vector<std::size_t> ParameterSet::first_users(std::size_t layer) const {
    std::vector<std::size_t> first;
    for (const std::size_t user : users_of_layer_[layer])
        if (users_[user].layer == range_.first + static_cast<int>(layer)) first.push_back(user);
    return first;
}

Tensors ParameterSet::values_of(std::size_t layer) const {
    Tensors values;
    for (const std::size_t user : first_users(layer)) values.push_back(users_[user].value);
    return values;
}

Tensors ParameterSet::take(std::size_t layer, int node) {
    Tensors sums;
    for (const std::size_t user : first_users(layer)) sums.push_back(sum_at(users_[user], node));
    return sums;
}

void ParameterSet::put(std::size_t layer, int node, Tensors sums) {
    const std::vector<std::size_t> users = first_users(layer);
    for (std::size_t i = 0; i < users.size(); ++i) {
        if (!sums[i].defined()) continue;
        User& user = users_[users[i]];
        user.sums.resize(static_cast<std::size_t>(tree_.nodes()));
        user.sums[static_cast<std::size_t>(node)] = std::move(sums[i]);
    }
}

Tensors ParameterSet::totals(std::size_t layer) {
    Tensors totals;
    for (const std::size_t user : first_users(layer)) totals.push_back(total_of(users_[user]));
    return totals;
}

void ParameterSet::put_totals(std::size_t layer, Tensors totals) {
    const std::vector<std::size_t> users = first_users(layer);
    for (std::size_t i = 0; i < users.size(); ++i) {
        users_[users[i]].sums.clear();
        users_[users[i]].total = std::move(totals[i]);
    }
}

void ParameterSet::add_up() {
    const at::NoGradGuard no_grad;
    const MemoryScope memory(MemoryUse::kGradients);
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
        at::Tensor& gradient = parameters_[p].gradient;
        gradient = at::Tensor();
        const std::vector<std::size_t>& users = users_of_parameter_[p];
        for (const std::size_t user : users) {
            // A user that found nothing counts as zeros, wherever it is.
            at::Tensor total = total_of(users_[user]);
            if (!total.defined() && users.size() > 1) total = at::zeros_like(parameters_[p].value);
            if (total.defined()) gradient = gradient.defined() ? at::add(gradient, total) : total;
        }
    }
}

void ParameterSet::discard() {
    for (Parameter& parameter : parameters_) parameter.gradient = at::Tensor();
    for (User& user : users_) {
        user.sums.clear();
        user.total = at::Tensor();
    }
}

std::size_t ParameterSet::user_of(const std::string& name, int layer) const {
    const auto found = std::find_if(users_.begin(), users_.end(), [&](const User& user) {
        return user.layer == layer && user.name == name;
    });
    ECOPIPE_CHECK(found != users_.end());
    return static_cast<std::size_t>(found - users_.begin());
}

at::Tensor ParameterSet::found_by(const std::string& name, int user) {
    const at::Tensor& total = total_of(users_[user_of(name, user)]);
    const at::NoGradGuard no_grad;
    return total.defined() ? total : at::zeros_like(*borrowed(name));
}

void ParameterSet::bring(const std::string& name, int user, at::Tensor gradient) {
    users_[user_of(name, user)].total = std::move(gradient);
}

at::Tensor* ParameterSet::borrowed(const std::string& name) {
    for (auto& [known, value] : borrowed_)
        if (known == name) return &value;
    return nullptr;
}

}  // namespace ecopipe
