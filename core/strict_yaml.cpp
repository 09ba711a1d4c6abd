#include "core/strict_yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <sstream>

#include "core/log.h"
#include "core/utf8.h"

namespace ecopipe {
namespace {

struct YamlRefusal {
    int line;
    std::string problem;
};

template <class T>
bool parse_all(const std::string& text, T& out) {
    const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, out);
    return error == std::errc() && stop == end && begin != end;
}

Json plain_scalar(const std::string& text) {
    if (text.empty() || text == "~" || text == "null") return nullptr;
    if (text == "true") return true;
    if (text == "false") return false;
    if (std::int64_t integer = 0; parse_all(text, integer)) return integer;
    const bool numeric = text.find_first_of("0123456789") != std::string::npos &&
                         text.find_first_not_of("0123456789+-.eE") == std::string::npos;
    if (double number = 0; numeric && parse_all(text, number)) return number;
    return text;
}

// Builds the value event by event; never recurses, so that depth is bounded before anything is
// built.
class Builder : public YAML::EventHandler {
  public:
    Json take() { return std::move(root_); }

    void OnDocumentStart(const YAML::Mark&) override {}
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        no_anchor(mark, anchor);
        value(mark, nullptr);
    }
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
        throw YamlRefusal{mark.line, "aliases are not accepted"};
    }
    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  const std::string& text) override {
        no_anchor(mark, anchor);
        if (tag != "?" && tag != "!" && !tag.empty())
            throw YamlRefusal{mark.line, "tags are not accepted"};
        if (expects_key()) {
            if (!open_.back().object->is_object() || open_.back().object->contains(text))
                throw YamlRefusal{mark.line,
                                  fmt::format("key '{}' is given twice", printable(text))};
            open_.back().key = text;
            open_.back().has_key = true;
            return;
        }
        value(mark, tag == "!" ? Json(text) : plain_scalar(text));
    }
    void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value) override {
        no_anchor(mark, anchor);
        start(mark, Json::array());
    }
    void OnSequenceEnd() override { open_.pop_back(); }
    void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value) override {
        no_anchor(mark, anchor);
        start(mark, Json::object());
    }
    void OnMapEnd() override { open_.pop_back(); }

  private:
    struct Open {
        Json* object;
        std::string key;
        bool has_key = false;
    };

    static void no_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
        if (anchor != YAML::NullAnchor) throw YamlRefusal{mark.line, "anchors are not accepted"};
    }
    [[nodiscard]] bool expects_key() const {
        return !open_.empty() && open_.back().object->is_object() && !open_.back().has_key;
    }
    Json* value(const YAML::Mark& mark, Json json) {
        if (expects_key()) throw YamlRefusal{mark.line, "expected a text as key"};
        if (open_.empty()) {
            root_ = std::move(json);
            return &root_;
        }
        Open& top = open_.back();
        if (top.object->is_array()) {
            top.object->push_back(std::move(json));
            return &top.object->back();
        }
        top.has_key = false;
        return &((*top.object)[top.key] = std::move(json));
    }
    void start(const YAML::Mark& mark, Json json) {
        if (open_.size() >= static_cast<std::size_t>(kConfigDepthMax))
            throw YamlRefusal{mark.line,
                              fmt::format("nested deeper than {} levels", kConfigDepthMax)};
        Json* placed = value(mark, std::move(json));
        open_.push_back({placed, {}, false});
    }

    Json root_;
    std::vector<Open> open_;
};

// yaml-cpp's scanner recurses with the nesting of flow collections: refuse absurd depth before it
// sees the text.
bool too_deep(std::string_view text) {
    int depth = 0;
    for (const char c : text) {
        if (c == '[' || c == '{') ++depth;
        if ((c == ']' || c == '}') && depth > 0) --depth;
        if (depth > kConfigDepthMax) return true;
    }
    // Block collections nest by indentation; "- - - -" and "? ? ?" nest within a line.
    std::size_t line_start = 0;
    while (line_start < text.size()) {
        std::size_t end = text.find('\n', line_start);
        if (end == std::string_view::npos) end = text.size();
        const std::string_view line = text.substr(line_start, end - line_start);
        int marks = 0;
        std::size_t i = 0;
        for (; i < line.size() &&
               (line[i] == ' ' || line[i] == '-' || line[i] == '?' || line[i] == ':');
             ++i)
            marks += line[i] != ' ' ? 1 : 0;
        if (marks > kConfigDepthMax || i > 4096) return true;
        line_start = end + 1;
    }
    return false;
}

}  // namespace

Result<Json> parse_yaml(std::string_view text, const std::string& source) {
    // yaml-cpp 0.7 makes other bytes of a NUL, which may not be UTF-8.
    if (!is_utf8(text) || text.find('\0') != std::string_view::npos)
        return fail(ExitCode::kBadFile, source + ": is not UTF-8");
    if (text.size() > kConfigBytesMax)
        return fail(ExitCode::kBadFile, fmt::format("{}: expected at most {} bytes, found {}",
                                                    source, kConfigBytesMax, text.size()));
    if (too_deep(text))
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: nested deeper than {} levels", source, kConfigDepthMax));
    try {
        std::istringstream stream{std::string(text)};
        YAML::Parser parser(stream);
        Builder builder;
        if (!parser.HandleNextDocument(builder)) return Json(nullptr);
        Builder rest;
        if (parser.HandleNextDocument(rest))
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: expected one document, found more", source));
        return builder.take();
    } catch (const YamlRefusal& refusal) {
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: line {}: {}", source, refusal.line + 1, refusal.problem));
    } catch (const YAML::Exception& error) {
        return fail(ExitCode::kBadFile, fmt::format("{}: line {}: not valid YAML: {}", source,
                                                    error.mark.line + 1, printable(error.msg)));
    } catch (const std::exception& error) {
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: not valid YAML ({})", source, one_line(error.what())));
    }
}

}  // namespace ecopipe
