#include "orchestrator/train/validation_history.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ecopipe {

bool ValidationHistory::add(std::uint64_t step, double loss) {
    const bool improved = std::isfinite(loss) && loss < best_loss();
    entries_.push_back({step, loss});
    return improved;
}

bool ValidationHistory::has(std::uint64_t step) const {
    return std::any_of(entries_.begin(), entries_.end(),
                       [&](const Entry& entry) { return entry.step == step; });
}

const ValidationHistory::Entry* ValidationHistory::best() const {
    const Entry* found = nullptr;
    for (const Entry& entry : entries_)
        if (std::isfinite(entry.loss) && (found == nullptr || entry.loss < found->loss))
            found = &entry;
    return found;
}

std::uint64_t ValidationHistory::without_improvement() const {
    const Entry* from = best();
    return from == nullptr ? entries_.size() : static_cast<std::uint64_t>(&entries_.back() - from);
}

std::uint64_t ValidationHistory::best_step() const { return best() == nullptr ? 0 : best()->step; }

double ValidationHistory::best_loss() const {
    return best() == nullptr ? std::numeric_limits<double>::infinity() : best()->loss;
}

void ValidationHistory::rewind(std::uint64_t step) {
    std::erase_if(entries_, [&](const Entry& entry) { return entry.step > step; });
}

OrderedJson ValidationHistory::json() const {
    OrderedJson list = OrderedJson::array();
    for (const Entry& entry : entries_) {
        OrderedJson item{{"step", entry.step}};
        if (std::isfinite(entry.loss)) item["loss"] = entry.loss;
        list.push_back(std::move(item));
    }
    return list;
}

ValidationHistory ValidationHistory::read(std::vector<Fields> list) {
    ValidationHistory out;
    for (Fields& fields : list) {
        const auto step = static_cast<std::uint64_t>(fields.integer("step", {0, INT64_MAX}));
        const double loss = fields.has("loss")
                                ? fields.number("loss", {-std::numeric_limits<double>::max(),
                                                         std::numeric_limits<double>::max()})
                                : std::numeric_limits<double>::infinity();
        fields.no_others();
        out.entries_.push_back({step, loss});
    }
    return out;
}

}  // namespace ecopipe
