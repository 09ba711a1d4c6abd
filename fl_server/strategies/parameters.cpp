#include "fl_server/strategies/parameters.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/check.h"

namespace ecopipe {

ParameterRule integer_rule(std::string key, std::int64_t low, std::int64_t high,
                           std::int64_t otherwise, std::string meaning) {
    return {std::move(key),
            ParameterRule::Kind::kInteger,
            static_cast<double>(low),
            static_cast<double>(high),
            {},
            otherwise,
            std::move(meaning),
            false};
}

ParameterRule number_rule(std::string key, double low, double high, double otherwise,
                          std::string meaning) {
    return {std::move(key),    ParameterRule::Kind::kNumber, low, high, {}, otherwise,
            std::move(meaning), false};
}

ParameterRule word_rule(std::string key, std::vector<std::string> words, std::string otherwise,
                        std::string meaning) {
    return {std::move(key),       ParameterRule::Kind::kWord, 0, 0, std::move(words),
            std::move(otherwise), std::move(meaning),           false};
}

ParameterRule changeable(ParameterRule rule) {
    rule.may_change = true;
    return rule;
}

Parameters::Parameters(const ParameterRules& rules) {
    for (const ParameterRule& rule : rules) values_[rule.key] = rule.otherwise;
}

void Parameters::read(const ParameterRules& rules, Fields& fields) {
    for (const ParameterRule& rule : rules) {
        if (!fields.has(rule.key)) continue;
        switch (rule.kind) {
            case ParameterRule::Kind::kInteger:
                values_[rule.key] = fields.integer(
                    rule.key,
                    {static_cast<std::int64_t>(rule.low), static_cast<std::int64_t>(rule.high)});
                break;
            case ParameterRule::Kind::kNumber:
                values_[rule.key] = fields.number(rule.key, {rule.low, rule.high});
                break;
            case ParameterRule::Kind::kWord: {
                const std::string word = fields.text(rule.key);
                if (std::find(rule.words.begin(), rule.words.end(), word) == rule.words.end())
                    fields.refuse(rule.key, fmt::format("expected {}, found '{}'",
                                                        fmt::join(rule.words, " or "), word));
                values_[rule.key] = word;
                break;
            }
        }
    }
}

void Parameters::set(const std::string& key, Json value) {
    ECOPIPE_CHECK(values_.contains(key));
    values_[key] = std::move(value);
}

std::uint32_t Parameters::integer(const std::string& key) const {
    const auto found = values_.find(key);
    ECOPIPE_CHECK(found != values_.end());
    return found->second.get<std::uint32_t>();
}

double Parameters::number(const std::string& key) const {
    const auto found = values_.find(key);
    ECOPIPE_CHECK(found != values_.end());
    return found->second.get<double>();
}

std::string Parameters::word(const std::string& key) const {
    const auto found = values_.find(key);
    ECOPIPE_CHECK(found != values_.end());
    return found->second.get<std::string>();
}

OrderedJson Parameters::json(const ParameterRules& rules) const {
    OrderedJson out;
    for (const ParameterRule& rule : rules) out[rule.key] = values_.at(rule.key);
    return out;
}

OrderedJson Parameters::json(const ParameterRules& rules, bool may_change) const {
    OrderedJson out = OrderedJson::object();
    for (const ParameterRule& rule : rules)
        if (rule.may_change == may_change) out[rule.key] = values_.at(rule.key);
    return out;
}

}  // namespace ecopipe
