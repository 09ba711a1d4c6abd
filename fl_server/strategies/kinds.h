#pragma once
// One function a strategy's file.

#include "fl_server/strategies/strategy_kind.h"

namespace ecopipe {

[[nodiscard]] StrategyKind fed_avg();
[[nodiscard]] StrategyKind fed_prox();
[[nodiscard]] StrategyKind fed_avgm();
[[nodiscard]] StrategyKind fed_adam();
[[nodiscard]] StrategyKind fed_yogi();
[[nodiscard]] StrategyKind fed_async();
[[nodiscard]] StrategyKind fed_buff();
[[nodiscard]] StrategyKind fed_at();
[[nodiscard]] StrategyKind tifl();
[[nodiscard]] StrategyKind eco_fl();

// `rules` after `more`.
[[nodiscard]] inline ParameterRules joined(ParameterRules rules, const ParameterRules& more) {
    rules.insert(rules.end(), more.begin(), more.end());
    return rules;
}

}  // namespace ecopipe
