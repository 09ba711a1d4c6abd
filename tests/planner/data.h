#pragma once
// Where the files are that the planner's tests read.

#include <string>

namespace ecopipe {

inline std::string planner_data() {
    return std::string(ECOPIPE_SOURCE_DIR) + "/tests/planner/data/";
}

}  // namespace ecopipe
