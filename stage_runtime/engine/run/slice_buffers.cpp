#include "stage_runtime/engine/run/slice_buffers.h"

#include <algorithm>

#include "core/tensor_memory.h"

namespace ecopipe {

SliceBuffers::SliceBuffers(const Layers& layers) : layers_(&layers) {
    for (std::size_t i = 0; i < layers.size(); ++i)
        for (std::size_t k = 0; k < layers[i]->tensors.size(); ++k) {
            const LayerTensor& tensor = layers[i]->tensors[k];
            if (!tensor.buffer || tensor.lent) continue;
            const auto& own = layers[i]->stateful;
            const bool stateful = std::find(own.begin(), own.end(), k) != own.end();
            some_stateful_ = some_stateful_ || stateful;
            buffers_.push_back({static_cast<int>(i), k, stateful});
        }
}

void SliceBuffers::sync() const {
    if (!some_stateful_) return;
    for (const auto& layer : *layers_) layer->sync();
}

at::Tensor* SliceBuffers::find(const std::string& name) {
    for (const Buffer& buffer : buffers_)
        if (name == layer_of(buffer).tensors[buffer.index].name) return &value_of(buffer);
    return nullptr;
}

void SliceBuffers::begin_step() {
    const MemoryScope memory(MemoryUse::kWeights);
    sync();
    for (Buffer& buffer : buffers_) buffer.before_step = value_of(buffer).clone();
    in_step_ = true;
}

void SliceBuffers::commit() {
    for (Buffer& buffer : buffers_) buffer.before_step = at::Tensor();
    in_step_ = false;
}

void SliceBuffers::discard() {
    if (!in_step_) return;
    sync();
    for (const Buffer& buffer : buffers_) value_of(buffer).copy_(buffer.before_step);
    commit();
}

Tensors SliceBuffers::stateful(LayerRange layers) const {
    sync();
    Tensors values;
    for (const Buffer& buffer : buffers_)
        if (buffer.stateful && layers.contains(buffer.layer)) values.push_back(value_of(buffer));
    return values;
}

void SliceBuffers::put_stateful(LayerRange layers, const Tensors& values) const {
    auto value = values.begin();
    for (const Buffer& buffer : buffers_)
        if (buffer.stateful && layers.contains(buffer.layer))
            layer_of(buffer).put_buffer(buffer.index, *value++);
}

Tensors SliceBuffers::copies_of_others(LayerRange layers) const {
    Tensors values;
    for (const Buffer& buffer : buffers_)
        values.push_back(buffer.stateful || !layers.contains(buffer.layer)
                             ? at::Tensor()
                             : value_of(buffer).clone());
    return values;
}

// Past autograd's version counter: the graphs just made saved these buffers, and their backward
// does not read them.
void SliceBuffers::restore_others(const Tensors& values) const {
    for (std::size_t i = 0; i < buffers_.size(); ++i)
        if (values[i].defined()) value_of(buffers_[i]).variable_data().copy_(values[i]);
}

}  // namespace ecopipe
