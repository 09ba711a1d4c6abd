#pragma once
// A run as a table of text: a row a device, the newest events below. Pure but for the time zone.

#include <string>
#include <vector>

#include "orchestrator/view/run_view.h"

namespace ecopipe {

// At most `rows` lines of at most `columns` characters. Times of day are `utc_offset_s` east of
// UTC.
[[nodiscard]] std::vector<std::string> table_lines(const RunSnapshot& run, std::size_t columns,
                                                   std::size_t rows, int utc_offset_s);

// Seconds by which this machine's time zone is east of UTC now; 0 if it cannot say.
[[nodiscard]] int local_utc_offset_s();

// "step 3/10  epoch 0.30  loss 1.2345  210 samples/s  0:07 left"
[[nodiscard]] std::string progress_line(const RunSnapshot& run);

// "3 s", "2 min", "5 h"
[[nodiscard]] std::string age_text(std::int64_t ms);

// The first `columns` characters of UTF-8 text.
[[nodiscard]] std::string cut_to(const std::string& text, std::size_t columns);

}  // namespace ecopipe
