#pragma once
// Recipes, strategy events and a model's layout as JSON, as the journal keeps them. Numbers keep
// every bit.

#include "core/result.h"
#include "core/strict_json.h"
#include "fl_server/numbers/model_layout.h"
#include "fl_server/numbers/recipe.h"
#include "fl_server/strategies/strategy.h"

namespace ecopipe {

[[nodiscard]] Json recipe_json(const Recipe& recipe);
[[nodiscard]] Result<Recipe> recipe_from(const Json& json);
[[nodiscard]] Json layout_json(const ModelLayout& layout);
[[nodiscard]] Result<ModelLayout> layout_from(const Json& json);
[[nodiscard]] Json event_json(const StrategyEvent& event);
[[nodiscard]] Result<StrategyEvent> event_from(const Json& json);

}  // namespace ecopipe
