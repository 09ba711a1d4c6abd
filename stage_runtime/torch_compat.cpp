#include "stage_runtime/torch_compat.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <dlfcn.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>
#include <torch/version.h>

#include "core/log.h"
#include "stage_runtime/engine/allocator.h"

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

}  // namespace

void configure_torch(int threads) {
    install_counting_allocator();
    at::set_num_threads(threads);
    at::set_num_interop_threads(1);
    if (auto* set_threads = loaded_function<void(int)>("openblas_set_num_threads"))
        set_threads(threads);
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
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
