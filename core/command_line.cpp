#include "core/command_line.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <limits>
#include <sstream>

#include "core/last_words.h"
#include "core/log.h"

namespace ecopipe {
namespace po = boost::program_options;
namespace {

volatile std::sig_atomic_t g_signal = 0;  // the one global that POSIX leaves no way around

void remember_signal(int number) { g_signal = number; }

template <class T>
bool parse_whole(const std::string& text, T& out) {
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && stop == text.data() + text.size();
}

std::string number_text(double value) { return fmt::format("{}", value); }

}  // namespace

CommandLine::CommandLine(std::string program, std::string summary)
    : program_(std::move(program)), summary_(std::move(summary)), options_("Options", 110, 60) {
    flag("help", "print this help and leave");
    flag("version", "print the version and leave");
    text("log-level", "debug, info, warn or error", "info");
}

void CommandLine::text(const char* name, const char* help, std::optional<std::string> otherwise) {
    auto* value = po::value<std::string>();
    if (otherwise) value->default_value(*otherwise);
    options_.add_options()(name, value, help);
    rules_.push_back({name, [](const auto&) { return Result<void>(); }});
}

void CommandLine::texts(const char* name, const char* help) {
    options_.add_options()(name, po::value<std::vector<std::string>>()->composing(), help);
    rules_.push_back({name, [](const auto&) { return Result<void>(); }});
}

void CommandLine::integer(const char* name, const char* help, Range<std::int64_t> range,
                          std::optional<std::int64_t> otherwise) {
    auto* value = po::value<std::string>();
    if (otherwise) value->default_value(std::to_string(*otherwise));
    options_.add_options()(name, value, help);
    rules_.push_back(
        {name, [name, range](const po::variables_map& values) -> Result<void> {
             const auto& text = values[name].as<std::string>();
             std::int64_t number = 0;
             if (parse_whole(text, number) && number >= range.low && number <= range.high)
                 return {};
             return fail(ExitCode::kUsage,
                         fmt::format("--{}: expected an integer from {} to {}, found '{}'", name,
                                     range.low, range.high, printable(text)));
         }});
}

void CommandLine::number(const char* name, const char* help, Range<double> range,
                         std::optional<double> otherwise) {
    auto* value = po::value<std::string>();
    if (otherwise) value->default_value(number_text(*otherwise));
    options_.add_options()(name, value, help);
    rules_.push_back({name, [name, range](const po::variables_map& values) -> Result<void> {
                          const auto& text = values[name].as<std::string>();
                          double number = std::numeric_limits<double>::quiet_NaN();
                          if (parse_whole(text, number) && std::isfinite(number) &&
                              number >= range.low && number <= range.high)
                              return {};
                          return fail(
                              ExitCode::kUsage,
                              fmt::format("--{}: expected a number from {} to {}, found '{}'", name,
                                          range.low, range.high, printable(text)));
                      }});
}

void CommandLine::flag(const char* name, const char* help) {
    options_.add_options()(name, po::bool_switch(), help);
}

void CommandLine::positional(const char* name) { positions_.add(name, 1); }

Result<std::optional<ExitCode>> CommandLine::parse(int argc, const char* const* argv) {
    try {
        po::command_line_parser parser(argc, argv);
        const int style =
            po::command_line_style::unix_style &
            ~(po::command_line_style::allow_guessing | po::command_line_style::allow_short);
        po::store(parser.options(options_).positional(positions_).style(style).run(), values_);
        po::notify(values_);
    } catch (const po::too_many_positional_options_error&) {
        const char* const* word =
            std::find_if(argv + 1, argv + argc, [](const char* one) { return *one != '-'; });
        return fail(ExitCode::kUsage, fmt::format("expected options (--help lists them), found a "
                                                  "word too many, such as '{}'",
                                                  printable(word < argv + argc ? *word : "")));
    } catch (const po::error& error) {
        return fail(ExitCode::kUsage,
                    fmt::format("{} (--help lists the options)", one_line(error.what())));
    }
    if (get_flag("help")) {
        std::ostringstream listing;
        listing << options_;
        fmt::print("{}: {}\n\n{}", program_, summary_, listing.str());
        return ExitCode::kDone;
    }
    if (get_flag("version")) {
        fmt::print("{} {}\n", program_, kVersion);
        return ExitCode::kDone;
    }
    for (const Rule& rule : rules_)
        if (values_.count(rule.name) > 0) ECOPIPE_RETURN_IF_ERROR(rule.check(values_));
    ECOPIPE_RETURN_IF_ERROR(configure_log(program_, get_text("log-level")));
    return std::optional<ExitCode>();
}

bool CommandLine::given(const char* name) const {
    return values_.count(name) > 0 && !values_[name].defaulted();
}
bool CommandLine::has(const char* name) const { return values_.count(name) > 0; }
std::string CommandLine::get_text(const char* name) const {
    return has(name) ? values_[name].as<std::string>() : std::string();
}
std::vector<std::string> CommandLine::get_texts(const char* name) const {
    return has(name) ? values_[name].as<std::vector<std::string>>() : std::vector<std::string>();
}
std::int64_t CommandLine::get_integer(const char* name) const {
    std::int64_t number = 0;
    parse_whole(get_text(name), number);
    return number;
}
double CommandLine::get_number(const char* name) const {
    double number = 0;
    parse_whole(get_text(name), number);
    return number;
}
bool CommandLine::get_flag(const char* name) const {
    return values_.count(name) > 0 && values_[name].as<bool>();
}

OrderedJson CommandLine::effective() const {
    OrderedJson out = OrderedJson::object();
    for (const auto& option : options_.options()) {
        const std::string& name = option->long_name();
        if (name == "help" || name == "version" || values_.count(name) == 0) continue;
        const auto& value = values_[name].value();
        if (const auto* text = boost::any_cast<std::string>(&value)) {
            out[name] = *text;
        } else if (const auto* flag = boost::any_cast<bool>(&value)) {
            out[name] = *flag;
        } else if (const auto* list = boost::any_cast<std::vector<std::string>>(&value)) {
            out[name] = *list;
        }
    }
    return out;
}

namespace {

template <class Number>
Result<std::vector<Number>> parse_separated(const std::string& text, char separator,
                                            const std::string& refusal, Range<Number> range) {
    std::vector<Number> values;
    std::size_t begin = 0;
    while (begin <= text.size()) {
        const std::size_t end = std::min(text.find(separator, begin), text.size());
        Number value = 0;
        // Written so that NaN is refused.
        if (!parse_whole(text.substr(begin, end - begin), value) ||
            !(value >= range.low && value <= range.high))
            return fail(ExitCode::kUsage, fmt::format("{}, found '{}'", refusal, printable(text)));
        values.push_back(value);
        begin = end + 1;
    }
    return values;
}

Result<std::vector<std::int64_t>> parse_sides(const std::string& text, const std::string& refusal,
                                              std::size_t count) {
    ECOPIPE_ASSIGN_OR_RETURN(auto sides,
                             parse_separated<std::int64_t>(text, 'x', refusal, {1, 65536}));
    if (sides.size() != count)
        return fail(ExitCode::kUsage, fmt::format("{}, found '{}'", refusal, printable(text)));
    return sides;
}

}  // namespace

Result<std::vector<std::int64_t>> parse_integers(const std::string& text, const std::string& flag,
                                                 Range<std::int64_t> range) {
    return parse_separated(
        text, ',',
        fmt::format("{}: expected integers from {} to {} like 1,2,4", flag, range.low, range.high),
        range);
}

Result<std::vector<double>> parse_numbers(const std::string& text, const std::string& flag,
                                          Range<double> range) {
    return parse_separated(text, ',',
                           fmt::format("{}: expected numbers from {} to {:g} like 1,0.5,2", flag,
                                       range.low, range.high),
                           range);
}

Result<std::vector<std::int64_t>> parse_image_shape(const std::string& text,
                                                    const std::string& flag) {
    return parse_sides(text, flag + ": expected CxHxW", 3);
}

Result<HeightWidth> parse_height_width(const std::string& text, const std::string& flag) {
    ECOPIPE_ASSIGN_OR_RETURN(const auto sides, parse_sides(text, flag + ": expected HxW", 2));
    return HeightWidth{static_cast<int>(sides[0]), static_cast<int>(sides[1])};
}

namespace {

int code_of(const char* program, const std::function<Result<ExitCode>()>& body) {
    try {
        const auto result = body();
        if (result) return static_cast<int>(*result);
        fmt::print(stderr, "{}: {}\n", program, result.error().message);
        return static_cast<int>(result.error().code);
    } catch (const std::bad_alloc&) {
        fmt::print(stderr, "{}: out of memory\n", program);
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}: {}\n", program, one_line(error.what()));
    }
    return static_cast<int>(ExitCode::kRunFailed);
}

}  // namespace

int run_program(const char* program, const std::function<Result<ExitCode>()>& body) {
    install_last_words(program);
    // glibc's default thresholds hand freed activations back to the kernel: a pipeline step
    // took 2.4 times as long.
    mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the largest that glibc accepts
    mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
    return leave_main(code_of(program, body));
}

void watch_signals() {
    struct sigaction action{};
    action.sa_handler = remember_signal;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
}

int signal_received() { return g_signal; }

}  // namespace ecopipe
