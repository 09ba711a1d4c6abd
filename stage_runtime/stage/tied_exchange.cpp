#include "stage_runtime/stage/tied_exchange.h"

#include <algorithm>
#include <set>

namespace ecopipe {
namespace {

std::uint32_t tied_producer(TensorKind kind, const TiedUse& use) {
    return static_cast<std::uint32_t>(kind == TensorKind::kTiedGradient ? use.user : use.home);
}

TensorAddress tied_address(TensorKind kind, const RoutedStep& step, const TiedUse& use) {
    TensorAddress address;
    address.generation = step.generation;
    address.step = step.step;
    address.kind = kind;
    address.producer = tied_producer(kind, use);
    address.name = use.name;
    return address;
}

bool is_of_tie(const TensorAddress& address, const TiedUse& use) {
    return address.name == use.name && address.producer == tied_producer(address.kind, use);
}

}  // namespace

std::optional<SliceId> TiedExchange::slice_of(StageId stage) const {
    const auto stages = plan_->stages_of(device_);
    const auto found = std::find(stages.begin(), stages.end(), stage);
    if (found == stages.end()) return std::nullopt;
    return SliceId{static_cast<std::uint32_t>(found - stages.begin())};
}

// All holders of a stage have found the same; the first of them tells it.
bool TiedExchange::speaks_for(StageId stage) const {
    return plan_->devices_of(stage).front() == device_;
}

void TiedExchange::send_gradients(const RoutedStep& step) {
    for (const TieWay& tie : plan_->ties())
        if (const auto slice = slice_of(tie.user); slice && speaks_for(tie.user))
            router_.send_tied({tie.home}, tied_address(TensorKind::kTiedGradient, step, tie.use),
                              compute_.tied_gradient(*slice, tie.use));
}

void TiedExchange::take_gradients(const std::vector<TensorAddress>& addresses) {
    Instant since;
    const std::vector<HostTensor> tensors = router_.consume(addresses, {}, since);
    for (const TieWay& tie : plan_->ties())
        for (std::size_t i = 0; i < addresses.size(); ++i)
            if (is_of_tie(addresses[i], tie.use))
                if (const auto slice = slice_of(tie.home))
                    compute_.add_tied_gradient(*slice, tie.use, tensors[i]);
}

void TiedExchange::send_weights(const RoutedStep& step) {
    std::set<std::string> sent;
    for (const TieWay& tie : plan_->ties()) {
        const auto slice = slice_of(tie.home);
        if (!slice || !speaks_for(tie.home) || !sent.insert(tie.use.name).second) continue;
        std::vector<StageId> users;
        for (const TieWay& other : plan_->ties())
            if (other.use.name == tie.use.name) users.push_back(other.user);
        router_.send_tied(users, tied_address(TensorKind::kTiedWeight, step, tie.use),
                          compute_.tied_weight(*slice, tie.use));
    }
}

Result<void> TiedExchange::take_weights(const std::vector<TensorAddress>& addresses) {
    Instant since;
    const std::vector<HostTensor> tensors = router_.consume(addresses, {}, since);
    for (const TieWay& tie : plan_->ties())
        for (std::size_t i = 0; i < addresses.size(); ++i)
            if (is_of_tie(addresses[i], tie.use))
                if (const auto slice = slice_of(tie.user))
                    ECOPIPE_RETURN_IF_ERROR(compute_.set_tied_weight(*slice, tie.use, tensors[i]));
    return {};
}

}  // namespace ecopipe
