#include "fl_server/strategies/decision_json.h"

#include <fmt/format.h>

#include "core/log.h"
#include "fl_server/strategies/roster.h"

namespace ecopipe {
namespace {

// An enumerator by its number, from the first to the last.
template <class E>
E enumerator(const Json& number, E first, E last) {
    const auto n = number.get<std::int64_t>();
    if (n < static_cast<std::int64_t>(first) || n > static_cast<std::int64_t>(last))
        throw Json::out_of_range::create(401, fmt::format("{} is no enumerator", n), &number);
    return static_cast<E>(n);
}

Json term_json(const Term& term) {
    return {{"source", static_cast<int>(term.source)},
            {"version", term.version},
            {"slot", term.slot},
            {"stored", term.stored},
            {"coefficient", term.coefficient}};
}
Json terms_json(const std::vector<Term>& terms) {
    Json list = Json::array();
    for (const Term& term : terms) list.push_back(term_json(term));
    return list;
}
std::vector<Term> terms_from(const Json& list) {
    std::vector<Term> terms;
    for (const Json& t : list)
        terms.push_back({enumerator(t.at("source"), Term::Source::kGlobal, Term::Source::kStored),
                         t.at("version"), t.at("slot"), t.at("stored"), t.at("coefficient")});
    return terms;
}

// The journal is ours, but a file can be damaged: what does not fit is an error, not a crash.
template <class F>
auto guarded(F&& read) -> Result<decltype(read())> {
    try {
        return read();
    } catch (const Json::exception& error) {
        return fail(ExitCode::kBadFile, fmt::format("journal: {}", one_line(error.what())));
    }
}

}  // namespace

Json recipe_json(const Recipe& recipe) {
    Json close = Json::array();
    for (const Recipe::Close& c : recipe.close)
        close.push_back({{"slot", c.slot},
                         {"rule", static_cast<int>(c.combine.rule)},
                         {"divisor", c.combine.divisor},
                         {"trim", c.combine.trim},
                         {"byzantine", c.combine.byzantine},
                         {"keep", c.combine.keep}});
    Json keep = Json::array();
    for (const Recipe::Keep& k : recipe.keep)
        keep.push_back({{"name", k.name}, {"terms", terms_json(k.terms)}});
    Json json{{"close", close}, {"keep", keep}, {"next", terms_json(recipe.next)}};
    if (recipe.optimizer)
        json["optimizer"] = {{"kind", static_cast<int>(recipe.optimizer->kind)},
                             {"lr", recipe.optimizer->lr},
                             {"beta1", recipe.optimizer->beta1},
                             {"beta2", recipe.optimizer->beta2},
                             {"tau", recipe.optimizer->tau}};
    return json;
}

Result<Recipe> recipe_from(const Json& json) {
    return guarded([&] {
        Recipe recipe;
        for (const Json& c : json.at("close"))
            recipe.close.push_back(
                {c.at("slot"),
                 {enumerator(c.at("rule"), Combine::Rule::kMean, Combine::Rule::kMultiKrum),
                  c.at("divisor"), c.at("trim"), c.at("byzantine"), c.at("keep")}});
        for (const Json& k : json.at("keep"))
            recipe.keep.push_back({k.at("name"), terms_from(k.at("terms"))});
        recipe.next = terms_from(json.at("next"));
        if (json.contains("optimizer")) {
            const Json& o = json.at("optimizer");
            recipe.optimizer =
                ServerOptimizer{enumerator(o.at("kind"), ServerOptimizer::Kind::kMomentum,
                                           ServerOptimizer::Kind::kYogi),
                                o.at("lr"), o.at("beta1"), o.at("beta2"), o.at("tau")};
        }
        return recipe;
    });
}

Json layout_json(const ModelLayout& layout) {
    Json tensors = Json::array();
    for (const LayoutTensor& tensor : layout.tensors())
        tensors.push_back({{"name", tensor.name},
                           {"dtype", static_cast<int>(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"kind", static_cast<int>(tensor.kind)},
                           {"layer", tensor.layer}});
    return tensors;
}
Result<ModelLayout> layout_from(const Json& json) {
    ECOPIPE_ASSIGN_OR_RETURN(
        auto tensors, guarded([&] {
            std::vector<LayoutTensor> list;
            for (const Json& t : json)
                list.push_back(
                    {t.at("name"), enumerator(t.at("dtype"), DType::kF32, DType::kBool),
                     t.at("shape").get<Shape>(),
                     enumerator(t.at("kind"), StateKind::kParameter, StateKind::kInteger),
                     t.at("layer"), 0, 0});
            return list;
        }));
    return ModelLayout::create(std::move(tensors));
}

Json event_json(const StrategyEvent& event) {
    using namespace strategy_event;
    if (const auto* e = std::get_if<Joined>(&event))
        return {{"event", "joined"}, {"facts", facts_json(e->facts)}};
    if (const auto* e = std::get_if<Changed>(&event))
        return {{"event", "changed"}, {"facts", facts_json(e->facts)}};
    if (const auto* e = std::get_if<Left>(&event))
        return {{"event", "left"}, {"cluster", e->cluster}};
    if (const auto* e = std::get_if<Admitted>(&event))
        return {{"event", "admitted"},
                {"facts", facts_json(e->facts)},
                {"sequence", e->sequence},
                {"base_version", e->base_version},
                {"staleness", e->staleness}};
    if (const auto* e = std::get_if<Failed>(&event))
        return {{"event", "failed"}, {"cluster", e->cluster}, {"reason", e->reason}};
    if (const auto* e = std::get_if<Committed>(&event))
        return {{"event", "committed"}, {"version", e->version}, {"accuracy", e->accuracy}};
    return {{"event", "tick"}};
}

Result<StrategyEvent> event_from(const Json& json) {
    using namespace strategy_event;
    return guarded([&]() -> StrategyEvent {
        const std::string kind = json.at("event");
        if (kind == "joined") return Joined{facts_from(json.at("facts"))};
        if (kind == "changed") return Changed{facts_from(json.at("facts"))};
        if (kind == "left") return Left{json.at("cluster")};
        if (kind == "admitted")
            return Admitted{facts_from(json.at("facts")), json.at("sequence"),
                            json.at("base_version"), json.at("staleness")};
        if (kind == "failed") return Failed{json.at("cluster"), json.at("reason")};
        if (kind == "committed") return Committed{json.at("version"), json.at("accuracy")};
        return Tick{};
    });
}

}  // namespace ecopipe
