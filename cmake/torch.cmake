# ecopipe::torch: LibTorch's headers, and of its libraries those that the CPU needs. It serves Debian's libtorch-dev, an
# unpacked LibTorch and a pip wheel's `torch` folder (the last two by CMAKE_PREFIX_PATH), with CUDA in it or without.
# LibTorch's own find_package(Torch) is not asked: that of a CUDA build wants a CUDA toolkit to link a program that uses none.
if(TARGET ecopipe::torch)
    return()
endif()

set(ecopipe_torch_remedy "apt install libtorch-dev, or name another LibTorch or a pip wheel's torch folder in CMAKE_PREFIX_PATH")
# One line: CMake leaves one that begins with a space as it is.
function(ecopipe_torch_refuse text)
    message(FATAL_ERROR " ecopipe: ${text}")
endfunction()

if(NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
    math(EXPR bits "8 * ${CMAKE_SIZEOF_VOID_P}")
    ecopipe_torch_refuse("expected a compiler for a 64-bit system, which LibTorch needs, found one for ${bits} bits")
endif()

# Another CMAKE_PREFIX_PATH than the last time: what was found then does not count.
set(ecopipe_torch_places "${CMAKE_PREFIX_PATH};$ENV{CMAKE_PREFIX_PATH}")
if(NOT "${ECOPIPE_TORCH_PLACES}" STREQUAL "${ecopipe_torch_places}")
    unset(ECOPIPE_TORCH_INCLUDE CACHE)
    unset(ECOPIPE_LIB_torch_cpu CACHE)
    unset(ECOPIPE_LIB_c10 CACHE)
    set(ECOPIPE_TORCH_PLACES "${ecopipe_torch_places}" CACHE INTERNAL "where LibTorch was looked for")
endif()

set(ecopipe_torch_header torch/csrc/api/include/torch/version.h)
find_path(ECOPIPE_TORCH_INCLUDE ${ecopipe_torch_header} PATH_SUFFIXES include torch/include
    DOC "The directory that holds torch/csrc, ATen and c10")
mark_as_advanced(ECOPIPE_TORCH_INCLUDE)
if(NOT ECOPIPE_TORCH_INCLUDE)
    ecopipe_torch_refuse("expected LibTorch 1.13 or later, found none: ${ecopipe_torch_remedy}")
endif()
get_filename_component(ecopipe_torch_prefix ${ECOPIPE_TORCH_INCLUDE} DIRECTORY)

# Since 2.9 the numbers are in another header.
set(ecopipe_torch_headers ${ECOPIPE_TORCH_INCLUDE}/${ecopipe_torch_header})
if(EXISTS ${ECOPIPE_TORCH_INCLUDE}/torch/headeronly/version.h)
    list(APPEND ecopipe_torch_headers ${ECOPIPE_TORCH_INCLUDE}/torch/headeronly/version.h)
endif()
set(ecopipe_torch_version "")
foreach(part MAJOR MINOR PATCH)
    set(number "")
    foreach(header IN LISTS ecopipe_torch_headers)
        file(STRINGS ${header} line REGEX "#define TORCH_VERSION_${part} [0-9]+")
        if(line)
            string(REGEX REPLACE ".* " "" number "${line}")
        endif()
    endforeach()
    list(APPEND ecopipe_torch_version ${number})
endforeach()
list(JOIN ecopipe_torch_version "." ecopipe_torch_version)
if(ecopipe_torch_version VERSION_LESS 1.13)
    ecopipe_torch_refuse("expected LibTorch 1.13 or later, found ${ecopipe_torch_version} in ${ecopipe_torch_prefix}: ${ecopipe_torch_remedy}")
endif()

# The libraries beside the headers, and no others.
foreach(library torch_cpu c10)
    find_library(ECOPIPE_LIB_${library} ${library} NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH
        PATHS ${ecopipe_torch_prefix} PATH_SUFFIXES lib/${CMAKE_LIBRARY_ARCHITECTURE} lib lib64)
    mark_as_advanced(ECOPIPE_LIB_${library})
    if(NOT ECOPIPE_LIB_${library})
        ecopipe_torch_refuse("expected lib${library}.so of LibTorch ${ecopipe_torch_version} below ${ecopipe_torch_prefix}/lib, found none")
    endif()
endforeach()
set(ecopipe_torch_libraries ${ECOPIPE_LIB_torch_cpu} ${ECOPIPE_LIB_c10})

# pip wheels before 2.7 and LibTorch's "pre-cxx11 ABI" have std::string as no library of a distribution has it.
file(GLOB ecopipe_torch_configs ${ecopipe_torch_prefix}/share/cmake/Torch/TorchConfig.cmake)
foreach(config IN LISTS ecopipe_torch_configs)
    file(STRINGS ${config} old_abi REGEX "_GLIBCXX_USE_CXX11_ABI=0")
    if(old_abi)
        ecopipe_torch_refuse("expected a LibTorch with the C++11 ABI (a pip wheel from 2.7 on, or LibTorch's cxx11-abi archive), found ${ecopipe_torch_version} with the one before in ${ecopipe_torch_prefix}")
    endif()
endforeach()

# A CUDA build's libraries for the CPU still name some of CUDA's: they must be there, though nothing calls them.
if(NOT ECOPIPE_TORCH_LINKS STREQUAL "${ecopipe_torch_libraries}")
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/torch_links/main.cpp "int main() {}\n")
    try_compile(ecopipe_torch_links ${CMAKE_CURRENT_BINARY_DIR}/torch_links SOURCES ${CMAKE_CURRENT_BINARY_DIR}/torch_links/main.cpp
        LINK_OPTIONS -Wl,--no-as-needed LINK_LIBRARIES ${ecopipe_torch_libraries} OUTPUT_VARIABLE ecopipe_torch_output)
    if(NOT ecopipe_torch_links)
        string(REGEX MATCHALL "[^ \n]+, needed by" missing "${ecopipe_torch_output}")
        list(TRANSFORM missing REPLACE ", needed by" "")
        list(REMOVE_DUPLICATES missing)
        list(JOIN missing ", " missing)
        if(missing)
            ecopipe_torch_refuse("LibTorch ${ecopipe_torch_version} in ${ecopipe_torch_prefix} needs ${missing}: install what they belong to (pip install torch does; the CUDA runtime), or take a CPU build of LibTorch")
        endif()
        string(REGEX MATCH "[^\n]*(error|undefined|incompatible|wrong format)[^\n]*" said "${ecopipe_torch_output}")
        ecopipe_torch_refuse("expected LibTorch ${ecopipe_torch_version} in ${ecopipe_torch_prefix} to link, found: ${said}")
    endif()
    set(ECOPIPE_TORCH_LINKS "${ecopipe_torch_libraries}" CACHE INTERNAL "the LibTorch that was seen to link")
endif()

# Outside the system's directories LibTorch brings headers of other libraries too (fmt, from 2.9 on), in other versions than
# the ones that the rest is built with: only its own are taken.
set(ecopipe_torch_seen ${ECOPIPE_TORCH_INCLUDE})
if(NOT ECOPIPE_TORCH_INCLUDE IN_LIST CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES)
    set(ecopipe_torch_seen ${CMAKE_CURRENT_BINARY_DIR}/torch_include)
    file(REMOVE_RECURSE ${ecopipe_torch_seen})
    file(MAKE_DIRECTORY ${ecopipe_torch_seen})
    foreach(directory ATen c10 caffe2 torch)
        if(EXISTS ${ECOPIPE_TORCH_INCLUDE}/${directory})
            file(CREATE_LINK ${ECOPIPE_TORCH_INCLUDE}/${directory} ${ecopipe_torch_seen}/${directory} SYMBOLIC)
        endif()
    endforeach()
    # Installed programs find it where it is.
    get_filename_component(ecopipe_torch_directory ${ECOPIPE_LIB_torch_cpu} DIRECTORY)
    if(NOT ecopipe_torch_directory IN_LIST CMAKE_CXX_IMPLICIT_LINK_DIRECTORIES)
        list(APPEND CMAKE_INSTALL_RPATH ${ecopipe_torch_directory})
    endif()
endif()

add_library(ecopipe::torch INTERFACE IMPORTED GLOBAL)
target_include_directories(ecopipe::torch INTERFACE ${ecopipe_torch_seen} ${ecopipe_torch_seen}/torch/csrc/api/include)
target_link_libraries(ecopipe::torch INTERFACE ${ecopipe_torch_libraries})
message(STATUS "LibTorch ${ecopipe_torch_version} in ${ecopipe_torch_prefix}")
