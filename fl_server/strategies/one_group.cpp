#include "fl_server/strategies/one_group.h"

namespace ecopipe {

Recipe OneGroup::recipe(const std::vector<ClosedRound>& rounds) {
    Recipe recipe;
    recipe.close = {rounds.front().close};
    recipe.next = {Term{}, Term{Term::Source::kDelta, 0, rounds.front().close.slot, "", 1}};
    recipe.optimizer = optimizer_;
    return recipe;
}

}  // namespace ecopipe
