#pragma once
// Strict reading of JSON (and of YAML, see strict_yaml.h): unknown keys, duplicate keys, wrong
// types, lossy or out-of-range numbers and absurd nesting are refused, naming the file and the
// place in it; nothing is guessed.
//
// Reading is sticky: the first problem is kept, later reads return defaults, and `Document::finish`
// reports it. So a reader is a plain list of fields:
//
//     Document document(json, "plan.json");
//     Fields root = document.root();
//     plan.batch = root.integer("batch", {1, 1 << 20});
//     root.no_others();
//     ECOPIPE_RETURN_IF_ERROR(document.finish());

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace ecopipe {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

inline constexpr std::size_t kConfigBytesMax = 16U << 20;  // largest text that is parsed at all
inline constexpr int kConfigDepthMax = 64;

// Parses `text`; the error names `source`, line and column. Duplicate keys in one object are
// refused.
[[nodiscard]] Result<Json> parse_json(std::string_view text, const std::string& source);

template <class T>
struct Range {
    T low;
    T high;
};

class Document;

// One object of a document. A missing key is an error unless a default is given. Not thread-safe.
class Fields {
  public:
    [[nodiscard]] bool has(const std::string& key) const;
    [[nodiscard]] std::int64_t integer(const std::string& key, Range<std::int64_t> range);
    [[nodiscard]] std::int64_t integer(const std::string& key, Range<std::int64_t> range,
                                       std::int64_t otherwise);
    [[nodiscard]] double number(const std::string& key, Range<double> range);  // finite
    [[nodiscard]] double number(const std::string& key, Range<double> range, double otherwise);
    [[nodiscard]] std::string text(const std::string& key);  // not empty
    [[nodiscard]] std::string text(const std::string& key, const std::string& otherwise);
    [[nodiscard]] bool flag(const std::string& key, bool otherwise);
    [[nodiscard]] Fields object(const std::string& key);
    [[nodiscard]] std::vector<Fields> objects(const std::string& key);
    [[nodiscard]] std::vector<std::int64_t> integers(const std::string& key,
                                                     Range<std::int64_t> range);
    [[nodiscard]] std::vector<std::string> texts(const std::string& key);
    [[nodiscard]] std::vector<std::string> keys() const;

    void no_others();  // refuses every key that was not asked for
    void refuse(const std::string& key, const std::string& problem);  // a rule of the caller's
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    friend class Document;
    Fields(Document* document, const Json* object, std::string path);
    [[nodiscard]] const Json* find(const std::string& key);
    [[nodiscard]] const Json* need(const std::string& key);
    [[nodiscard]] std::string place(const std::string& key) const;
    [[nodiscard]] std::int64_t read_integer(const Json& value, const std::string& where,
                                            Range<std::int64_t> range);
    [[nodiscard]] double read_number(const Json& value, const std::string& where,
                                     Range<double> range);
    [[nodiscard]] std::string read_text(const Json& value, const std::string& where);

    Document* document_;
    const Json* object_;  // null after an error
    std::string path_;
    std::set<std::string> asked_;
};

// Owns the parsed text and the first problem found in it. Must outlive its Fields and not move
// meanwhile.
class Document {
  public:
    Document(Json json, std::string source, ExitCode code = ExitCode::kBadFile);
    Document(const Document&) = delete;
    Document& operator=(const Document&) = delete;

    [[nodiscard]] Fields root();
    void refuse(const std::string& place, const std::string& problem);
    [[nodiscard]] Result<void> finish() const;

  private:
    Json json_;
    std::string source_;
    ExitCode code_;
    std::string problem_;  // empty while all is well
};

// A value as it stands in an error: quoted, control bytes escaped, cut.
[[nodiscard]] std::string shown(const Json& value);

}  // namespace ecopipe
