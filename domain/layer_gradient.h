#pragma once
// The gradients of one layer's parameters, as devices that hold the layer together exchange them.

#include <string>

#include "core/host_tensor.h"

namespace ecopipe {

struct LayerGradient {
    HostTensor values;  // one after the other, of one dimension: F32; U8, where not all are that
    // A bit a parameter, 0 where nothing was found: four in a hexadecimal digit, the first one
    // lowest. "": none is missing.
    std::string missing;
};

}  // namespace ecopipe
