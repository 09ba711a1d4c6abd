#include "core/strict_json.h"

#include <fmt/format.h>

#include <cmath>

#include "core/log.h"

namespace ecopipe {
namespace {

struct JsonRefusal {
    std::string problem;
};

// "line 3, column 7" of a byte offset.
std::string line_and_column(std::string_view text, std::size_t offset) {
    std::size_t line = 1;
    std::size_t column = 1;
    for (std::size_t i = 0; i < std::min(offset, text.size()); ++i) {
        if (text[i] == '\n') {
            ++line;
            column = 1;
        } else {
            ++column;
        }
    }
    return fmt::format("line {}, column {}", line, column);
}

}  // namespace

Result<Json> parse_json(std::string_view text, const std::string& source) {
    if (text.size() > kConfigBytesMax)
        return fail(ExitCode::kBadFile, fmt::format("{}: expected at most {} bytes, found {}",
                                                    source, kConfigBytesMax, text.size()));
    std::vector<std::set<std::string>> keys_at_depth;
    const auto callback = [&](int depth, Json::parse_event_t event, Json& parsed) {
        if (depth > kConfigDepthMax)
            throw JsonRefusal{fmt::format("nested deeper than {} levels", kConfigDepthMax)};
        const auto level = static_cast<std::size_t>(depth);
        if (event == Json::parse_event_t::object_start) {
            if (keys_at_depth.size() <= level + 1) keys_at_depth.resize(level + 2);
            keys_at_depth[level + 1].clear();
        } else if (event == Json::parse_event_t::key) {
            const auto& key = parsed.get_ref<const std::string&>();
            if (!keys_at_depth[level].insert(key).second)
                throw JsonRefusal{fmt::format("key '{}' is given twice", printable(key))};
        }
        return true;
    };
    try {
        return Json::parse(text.begin(), text.end(), callback);
    } catch (const JsonRefusal& refusal) {
        return fail(ExitCode::kBadFile, fmt::format("{}: {}", source, refusal.problem));
    } catch (const Json::parse_error& error) {
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: {}: not valid JSON", source,
                                line_and_column(text, error.byte > 0 ? error.byte - 1 : 0)));
    } catch (const std::exception& error) {
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: not valid JSON ({})", source, one_line(error.what())));
    }
}

std::string shown(const Json& value) {
    if (value.is_object()) return "an object";
    if (value.is_array()) return "a list";
    return printable(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

Fields::Fields(Document* document, const Json* object, std::string path)
    : document_(document), object_(object), path_(std::move(path)) {
    if (object_ != nullptr && !object_->is_object()) {
        document_->refuse(path_, fmt::format("expected an object, found {}", shown(*object_)));
        object_ = nullptr;
    }
}

std::string Fields::place(const std::string& key) const {
    return path_.empty() ? key : path_ + "." + key;
}

bool Fields::has(const std::string& key) const {
    return object_ != nullptr && object_->contains(key) && !(*object_)[key].is_null();
}

const Json* Fields::find(const std::string& key) {
    asked_.insert(key);
    return has(key) ? &(*object_)[key] : nullptr;
}

const Json* Fields::need(const std::string& key) {
    const Json* value = find(key);
    if (value == nullptr && object_ != nullptr) document_->refuse(place(key), "is missing");
    return value;
}

std::int64_t Fields::read_integer(const Json& value, const std::string& where,
                                  Range<std::int64_t> range) {
    bool fits = value.is_number_integer();
    if (fits && value.is_number_unsigned() &&
        value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX))
        fits = false;
    if (fits) {
        const auto number = value.get<std::int64_t>();
        if (number >= range.low && number <= range.high) return number;
    }
    document_->refuse(where, fmt::format("expected an integer from {} to {}, found {}", range.low,
                                         range.high, shown(value)));
    return range.low;
}

double Fields::read_number(const Json& value, const std::string& where, Range<double> range) {
    if (value.is_number()) {
        const double number = value.get<double>();
        if (std::isfinite(number) && number >= range.low && number <= range.high) return number;
    }
    document_->refuse(where, fmt::format("expected a number from {} to {}, found {}", range.low,
                                         range.high, shown(value)));
    return range.low;
}

std::string Fields::read_text(const Json& value, const std::string& where) {
    if (value.is_string() && !value.get_ref<const std::string&>().empty())
        return value.get<std::string>();
    document_->refuse(where, fmt::format("expected a text, found {}", shown(value)));
    return {};
}

std::int64_t Fields::integer(const std::string& key, Range<std::int64_t> range) {
    const Json* value = need(key);
    return value != nullptr ? read_integer(*value, place(key), range) : range.low;
}

std::int64_t Fields::integer(const std::string& key, Range<std::int64_t> range,
                             std::int64_t otherwise) {
    const Json* value = find(key);
    return value != nullptr ? read_integer(*value, place(key), range) : otherwise;
}

double Fields::number(const std::string& key, Range<double> range) {
    const Json* value = need(key);
    return value != nullptr ? read_number(*value, place(key), range) : range.low;
}

double Fields::number(const std::string& key, Range<double> range, double otherwise) {
    const Json* value = find(key);
    return value != nullptr ? read_number(*value, place(key), range) : otherwise;
}

std::string Fields::text(const std::string& key) {
    const Json* value = need(key);
    return value != nullptr ? read_text(*value, place(key)) : std::string();
}

std::string Fields::text(const std::string& key, const std::string& otherwise) {
    const Json* value = find(key);
    return value != nullptr ? read_text(*value, place(key)) : otherwise;
}

bool Fields::flag(const std::string& key, bool otherwise) {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (value->is_boolean()) return value->get<bool>();
    document_->refuse(place(key), fmt::format("expected true or false, found {}", shown(*value)));
    return otherwise;
}

Fields Fields::object(const std::string& key) { return Fields(document_, need(key), place(key)); }

std::vector<Fields> Fields::objects(const std::string& key) {
    std::vector<Fields> out;
    const Json* value = need(key);
    if (value == nullptr) return out;
    if (!value->is_array()) {
        document_->refuse(place(key), fmt::format("expected a list, found {}", shown(*value)));
        return out;
    }
    for (std::size_t i = 0; i < value->size(); ++i)
        out.push_back(Fields(document_, &(*value)[i], fmt::format("{}[{}]", place(key), i)));
    return out;
}

std::vector<std::int64_t> Fields::integers(const std::string& key, Range<std::int64_t> range) {
    std::vector<std::int64_t> out;
    const Json* value = need(key);
    if (value == nullptr) return out;
    if (!value->is_array()) {
        document_->refuse(place(key), fmt::format("expected a list, found {}", shown(*value)));
        return out;
    }
    for (std::size_t i = 0; i < value->size(); ++i)
        out.push_back(read_integer((*value)[i], fmt::format("{}[{}]", place(key), i), range));
    return out;
}

std::vector<std::string> Fields::texts(const std::string& key) {
    std::vector<std::string> out;
    const Json* value = need(key);
    if (value == nullptr) return out;
    if (!value->is_array()) {
        document_->refuse(place(key), fmt::format("expected a list, found {}", shown(*value)));
        return out;
    }
    for (std::size_t i = 0; i < value->size(); ++i)
        out.push_back(read_text((*value)[i], fmt::format("{}[{}]", place(key), i)));
    return out;
}

std::vector<std::string> Fields::keys() const {
    std::vector<std::string> out;
    if (object_ != nullptr)
        for (const auto& [key, value] : object_->items()) out.push_back(key);
    return out;
}

void Fields::no_others() {
    if (object_ == nullptr) return;
    for (const auto& [key, value] : object_->items())
        if (!asked_.contains(key)) document_->refuse(place(printable(key)), "is not a known key");
}

void Fields::refuse(const std::string& key, const std::string& problem) {
    document_->refuse(key.empty() ? path_ : place(key), problem);
}

Document::Document(Json json, std::string source, ExitCode code)
    : json_(std::move(json)), source_(std::move(source)), code_(code) {}

Fields Document::root() { return Fields(this, &json_, ""); }

void Document::refuse(const std::string& place, const std::string& problem) {
    if (problem_.empty())
        problem_ = place.empty() ? fmt::format("{}: {}", source_, problem)
                                 : fmt::format("{}: {}: {}", source_, place, problem);
}

Result<void> Document::finish() const {
    if (!problem_.empty()) return fail(code_, problem_);
    return {};
}

}  // namespace ecopipe
