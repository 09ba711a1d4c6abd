// A federation's journal: an odd first byte gives the file itself, an even one a JSON text for each
// of the rows that hold one. What a strategy's event or recipe says is written and read back alike.
#include "fl_server/state/journal.h"

#include "fl_server/strategies/decision_json.h"
#include "fuzz/target.h"

namespace {

using namespace ecopipe;

void read_all(Journal& journal) {
    if (const auto rows = journal.versions())
        for (const VersionRow& row : *rows) {
            static_cast<void>(recipe_from(row.recipe));
            static_cast<void>(journal.updates_in(row.version));
        }
    if (const auto rows = journal.events())
        for (const Journal::Event& event : *rows) static_cast<void>(event_from(event.body));
    static_cast<void>(journal.snapshot());
    static_cast<void>(journal.meta("layout"));
    static_cast<void>(journal.sites());
    static_cast<void>(journal.finished_updates());
    static_cast<void>(journal.last_version());
    static_cast<void>(journal.sha256_of(1));
    static_cast<void>(
        journal.each_line(1, [](std::uint64_t, const std::string&) { return Result<bool>(true); }));
    static_cast<void>(journal.open_bases());
    static_cast<void>(journal.open_folds(1));
    static_cast<void>(journal.folds(0, 1));
    static_cast<void>(journal.last_fold());
    static_cast<void>(journal.update(1));
}

void read_text(std::string_view text) {
    const auto json = parse_json(std::string(text), "journal");
    if (!json) return;
    if (const auto recipe = recipe_from(*json)) {
        const Json written = recipe_json(*recipe);
        const auto again = recipe_from(written);
        ECOPIPE_CHECK(again && recipe_json(*again) == written);
    }
    if (const auto event = event_from(*json)) {
        const Json written = event_json(*event);
        const auto again = event_from(written);
        ECOPIPE_CHECK(again && event_json(*again) == written);
    }
    static_cast<void>(layout_from(*json));
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view rest = fuzz::text(data + 1, size - 1);
    if (data[0] % 2 == 0) {
        read_text(rest);
        return 0;
    }
    const fuzz::MemoryDirectory directory;
    directory.put("journal.sqlite", rest);
    for (const bool read_only : {true, false})
        if (auto journal = Journal::open(directory.path() + "/journal.sqlite", read_only))
            read_all(*journal);
    return 0;
}
