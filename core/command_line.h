#pragma once
// The command line that all programs share: --help, --version, --log-level, no guessed
// abbreviations, finite numbers in range, one line of refusal with exit code 2.

#include <boost/program_options.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "core/result.h"
#include "core/strict_json.h"

namespace ecopipe {

inline constexpr const char* kVersion = "0.1.0";

class CommandLine {
  public:
    CommandLine(std::string program, std::string summary);

    // Each adds one option; `range` and `otherwise` appear in --help. Without `otherwise` the
    // option is absent by default.
    void text(const char* name, const char* help, std::optional<std::string> otherwise = {});
    void texts(const char* name, const char* help);  // may be repeated
    void integer(const char* name, const char* help, Range<std::int64_t> range,
                 std::optional<std::int64_t> otherwise = {});
    void number(const char* name, const char* help, Range<double> range,
                std::optional<double> otherwise = {});
    void flag(const char* name, const char* help);
    void positional(const char* name);  // a word without dashes

    // Parses; on --help or --version prints to stdout and returns kDone to leave with.
    [[nodiscard]] Result<std::optional<ExitCode>> parse(int argc, const char* const* argv);

    [[nodiscard]] bool given(const char* name) const;  // by the user, not by default
    [[nodiscard]] bool has(const char* name) const;
    [[nodiscard]] std::string get_text(const char* name) const;
    [[nodiscard]] std::vector<std::string> get_texts(const char* name) const;
    [[nodiscard]] std::int64_t get_integer(const char* name) const;
    [[nodiscard]] double get_number(const char* name) const;
    [[nodiscard]] bool get_flag(const char* name) const;
    // Every option with its effective value, for run.json.
    [[nodiscard]] OrderedJson effective() const;

  private:
    struct Rule {
        std::string name;
        std::function<Result<void>(const boost::program_options::variables_map&)> check;
    };
    std::string program_;
    std::string summary_;
    boost::program_options::options_description options_;
    boost::program_options::positional_options_description positions_;
    boost::program_options::variables_map values_;
    std::vector<Rule> rules_;
};

// "1,2,8": integers within `range`. `flag` names the option in the refusal (kUsage).
[[nodiscard]] Result<std::vector<std::int64_t>> parse_integers(const std::string& text,
                                                               const std::string& flag,
                                                               Range<std::int64_t> range);
// "0.5,2,8": finite numbers within `range`, likewise.
[[nodiscard]] Result<std::vector<double>> parse_numbers(const std::string& text,
                                                        const std::string& flag,
                                                        Range<double> range);
// "CxHxW": one image's shape, each side 1 to 65536.
[[nodiscard]] Result<std::vector<std::int64_t>> parse_image_shape(const std::string& text,
                                                                  const std::string& flag);
// "HxW", likewise.
struct HeightWidth {
    int height = 0;
    int width = 0;
};
[[nodiscard]] Result<HeightWidth> parse_height_width(const std::string& text,
                                                     const std::string& flag);

// The body of every main(): raises malloc's thresholds, runs `body`, prints its error as "program:
// message" and turns it, and any exception that got out, into an exit code.
[[nodiscard]] int run_program(const char* program, const std::function<Result<ExitCode>()>& body);

// After SIGINT or SIGTERM: the signal's number, else 0. `watch_signals` installs handlers that only
// set it.
void watch_signals();
[[nodiscard]] int signal_received();

}  // namespace ecopipe
