#include "stage_runtime/engine/model/torch_compat.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>
#include <torch/version.h>

#include <array>
#include <cstdio>

#include "core/last_words.h"
#include "core/log.h"
#include "stage_runtime/engine/model/allocator.h"
#include "stage_runtime/engine/model/torch_version.h"

namespace ecopipe {
namespace {

template <class Function>
Function* loaded_function(const char* name) {
    return reinterpret_cast<Function*>(::dlsym(RTLD_DEFAULT, name));
}

// torch tells it in every version only within its configuration text: "CPU capability usage: AVX2".
std::string instruction_set() {
    constexpr std::string_view kKey = "CPU capability usage: ";
    const std::string config = at::show_config();
    const std::size_t at_key = config.find(kKey);
    if (at_key == std::string::npos) return "unknown";
    const std::size_t begin = at_key + kKey.size();
    return config.substr(begin, config.find('\n', begin) - begin);
}

// OpenBLAS takes a buffer for each thread that computes, those that it started as it was loaded
// included, and asks for ever when there is no room. The training needs some, too.
void end_without_room_for_blas(int threads) {
    constexpr std::size_t kBufferBytes = 128U << 20;  // of a thread, in its x86-64 build
    constexpr std::size_t kWorkBytes = 256U << 20;
    rlimit space{};
    if (::getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur == RLIM_INFINITY) return;
    const std::size_t needed = static_cast<std::size_t>(threads + 1) * kBufferBytes + kWorkBytes;
    void* const place = ::mmap(nullptr, needed, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place != MAP_FAILED) {
        ::munmap(place, needed);
        return;
    }
    std::array<char, 160> line{};
    std::snprintf(
        line.data(), line.size(),
        "out of memory: the address space is limited to %zu MiB (ulimit -v), which leaves "
        "less than the %zu MiB that OpenBLAS needs",
        static_cast<std::size_t>(space.rlim_cur >> 20), needed >> 20);
    end_with_last_words(line.data());
}

}  // namespace

void configure_torch(int threads) {
    if (loaded_function<char*()>("openblas_get_config") != nullptr)
        end_without_room_for_blas(threads);
    install_counting_allocator();
    at::set_num_threads(threads);
    at::set_num_interop_threads(1);
    if (auto* set_threads = loaded_function<void(int)>("openblas_set_num_threads"))
        set_threads(threads);
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
    leave_new_tensors_unfilled();
    keep_bits_stable();
}

void keep_bits_stable() {
    torch::jit::setGraphExecutorOptimize(false);
    torch::jit::getProfilingMode() = false;
    torch::jit::getExecutorMode() = false;
}

TorchVersions torch_versions() {
    TorchVersions versions;
    versions.torch = TORCH_VERSION;
    versions.instruction_set = instruction_set();
    if (auto* config = loaded_function<char*()>("openblas_get_config")) {
        versions.blas = config();
        versions.fast_blas = true;
        while (!versions.blas.empty() && versions.blas.back() == ' ') versions.blas.pop_back();
    } else if (at::hasMKL()) {
        versions.blas = "MKL";
        versions.fast_blas = true;
    } else {
        versions.blas = "reference BLAS";
    }
    return versions;
}

void warn_without_fast_blas() {
    if (!torch_versions().fast_blas)
        log_warn(
            "no OpenBLAS is loaded: training will be 15 to 50 times slower; apt install "
            "libopenblas0-pthread");
}

}  // namespace ecopipe
