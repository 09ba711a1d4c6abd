#pragma once
// The parameters of a strategy: declared once with range, default and meaning; read strictly from
// server.yaml; printed whole by --print-config.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/strict_json.h"

namespace ecopipe {

struct ParameterRule {
    enum class Kind : std::uint8_t { kInteger, kNumber, kWord };
    std::string key;
    Kind kind = Kind::kNumber;
    double low = 0;
    double high = 0;
    std::vector<std::string> words;  // kWord: what it may be
    Json otherwise;                  // the default
    std::string meaning;
    bool may_change = false;  // over a federation's restart
};
using ParameterRules = std::vector<ParameterRule>;

[[nodiscard]] ParameterRule integer_rule(std::string key, std::int64_t low, std::int64_t high,
                                         std::int64_t otherwise, std::string meaning);
[[nodiscard]] ParameterRule number_rule(std::string key, double low, double high, double otherwise,
                                        std::string meaning);
[[nodiscard]] ParameterRule word_rule(std::string key, std::vector<std::string> words,
                                      std::string otherwise, std::string meaning);

// Of a parameter that says when something happens and not what: the same updates make the same bytes
// whatever it is, and a federation goes on under another value after a restart.
[[nodiscard]] ParameterRule changeable(ParameterRule rule);

// Every parameter of one strategy with its effective value. Asking for one that was not declared is
// a bug.
class Parameters {
  public:
    Parameters() = default;
    explicit Parameters(const ParameterRules& rules);  // all at their defaults

    // Takes what `fields` has of them.
    void read(const ParameterRules& rules, Fields& fields);
    void set(const std::string& key, Json value);

    [[nodiscard]] bool has(const std::string& key) const { return values_.contains(key); }
    [[nodiscard]] std::uint32_t integer(const std::string& key) const;
    [[nodiscard]] double number(const std::string& key) const;
    [[nodiscard]] std::string word(const std::string& key) const;
    [[nodiscard]] OrderedJson json(const ParameterRules& rules) const;  // in the rules' order
    // Of those alone that may change over a restart, or may not.
    [[nodiscard]] OrderedJson json(const ParameterRules& rules, bool may_change) const;

  private:
    std::map<std::string, Json> values_;
};

}  // namespace ecopipe
