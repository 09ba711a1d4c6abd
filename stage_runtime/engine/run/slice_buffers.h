#pragma once
// The buffers of a slice's layers: running statistics, and whatever else a layer changes by itself.
// They change by a committed step alone, so they are kept as they were when it began; and a forward
// that runs again for its graphs finds them as it did the first time, and leaves them as they are.
// Includes torch.

#include <string>
#include <vector>

#include "domain/layer_range.h"
#include "stage_runtime/engine/model/layer.h"

namespace ecopipe {

class SliceBuffers {
  public:
    SliceBuffers() = default;                     // of no layers
    explicit SliceBuffers(const Layers& layers);  // which outlive it

    // The layers' tensors are what the layers hold: before any is read or written from outside.
    void sync() const;
    // Null for any other name. After sync.
    [[nodiscard]] at::Tensor* find(const std::string& name);

    void begin_step();  // what they are now is what `discard` goes back to
    void commit();      // what they are now is the state
    void discard();     // what they were when the step began, if one has
    // Of some layers of the slice, counted from 0, the values of those that a forward depends on
    // (Layer::stateful), as they are.
    [[nodiscard]] Tensors stateful(LayerRange layers) const;
    // Runs `forward` of these layers with these values of them; all their buffers are afterwards
    // what they are now.
    template <class Forward>
    void run_again(LayerRange layers, const Tensors& stateful_then, const Forward& forward) {
        const Tensors now = stateful(layers);
        put_stateful(layers, stateful_then);
        const Tensors others = copies_of_others(layers);
        forward();
        put_stateful(layers, now);
        restore_others(others);
    }

  private:
    struct Buffer {
        int layer = 0;          // within the slice
        std::size_t index = 0;  // of the layer's tensors
        bool stateful = false;  // the layer replaces or writes it by itself
        at::Tensor before_step{};
    };
    [[nodiscard]] Layer& layer_of(const Buffer& buffer) const {
        return *(*layers_)[static_cast<std::size_t>(buffer.layer)];
    }
    [[nodiscard]] at::Tensor& value_of(const Buffer& buffer) const {
        return layer_of(buffer).tensors[buffer.index].tensor;
    }
    void put_stateful(LayerRange layers, const Tensors& values) const;
    // One a buffer; undefined where stateful, and of other layers.
    [[nodiscard]] Tensors copies_of_others(LayerRange layers) const;
    void restore_others(const Tensors& values) const;

    const Layers* layers_ = nullptr;
    std::vector<Buffer> buffers_;
    bool some_stateful_ = false;
    bool in_step_ = false;
};

}  // namespace ecopipe
