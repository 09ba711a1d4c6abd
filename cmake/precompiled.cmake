# What nearly every file reads, read once. clang-tidy does without (scripts/tidy.sh): there a file that includes too little is
# found, and by tests/structure/check_headers.py a header.
set(ECOPIPE_OFTEN_INCLUDED
    <algorithm> <array> <charconv> <chrono> <cmath> <filesystem> <fstream> <functional> <map> <memory> <numeric> <optional> <set>
    <span> <sstream> <string> <thread> <vector> <fmt/format.h> <fmt/ranges.h> <nlohmann/json.hpp> <tl/expected.hpp>)

# ecopipe_precompiled(NAME [HEADERS ...] [LIBRARIES ...]): what REUSE_FROM names.
function(ecopipe_precompiled NAME)
    cmake_parse_arguments(ARG "" "" "HEADERS;LIBRARIES" ${ARGN})
    file(CONFIGURE OUTPUT ${NAME}.cpp CONTENT "")
    add_library(${NAME} OBJECT EXCLUDE_FROM_ALL ${CMAKE_CURRENT_BINARY_DIR}/${NAME}.cpp)
    target_link_libraries(${NAME} PRIVATE ecopipe_flags fmt::fmt nlohmann_json::nlohmann_json tl::expected ${ARG_LIBRARIES})
    target_precompile_headers(${NAME} PRIVATE ${ECOPIPE_OFTEN_INCLUDED} ${ARG_HEADERS})
endfunction()

if(ECOPIPE_PRECOMPILE)
    # One a level of optimization: with one for both the planner's search took 7 % longer.
    ecopipe_precompiled(ecopipe_precompiled)
    ecopipe_precompiled(ecopipe_precompiled_computes)
    ecopipe_computes(ecopipe_precompiled_computes)
    foreach(directory core domain planner transport stage_runtime orchestrator fl_server)
        get_property(targets DIRECTORY ${CMAKE_SOURCE_DIR}/${directory} PROPERTY BUILDSYSTEM_TARGETS)
        foreach(target IN LISTS targets)
            get_target_property(own ${target} PRECOMPILE_HEADERS)
            get_target_property(computes ${target} ECOPIPE_COMPUTES)
            if(own)
                continue()
            elseif(computes)
                target_precompile_headers(${target} REUSE_FROM ecopipe_precompiled_computes)
            else()
                target_precompile_headers(${target} REUSE_FROM ecopipe_precompiled)
            endif()
        endforeach()
    endforeach()
endif()
