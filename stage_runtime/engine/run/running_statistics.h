#pragma once
// What batch norm finds in a step, micro-batch by micro-batch, until the commit adds it to the
// running statistics. So they become the same wherever each micro-batch ran: added in the order of
// the micro-batches, from the same numbers. Only with several sum blocks; with one, a forward adds
// by itself, with its sums in double precision, and the bits are others. Includes torch.

#include <cstdint>
#include <map>
#include <vector>

#include "core/host_tensor.h"
#include "core/result.h"
#include "stage_runtime/engine/model/layer.h"

namespace ecopipe {

class RunningStatistics {
  public:
    RunningStatistics() = default;  // of no layers
    explicit RunningStatistics(const Layers& layers);

    // While it lives, what a forward of the layers finds is kept apart.
    class Capture {
      public:
        explicit Capture(RunningStatistics* to);  // null: nothing is
        ~Capture();
        Capture(const Capture&) = delete;
        Capture& operator=(const Capture&) = delete;
        void keep(std::uint32_t micro_batch);  // what was found, and is forgotten otherwise

      private:
        RunningStatistics* to_;
        std::vector<Tensors> found_;  // a layer
    };

    // Bytes of what is found in a micro-batch; 0: the layers have no statistics.
    [[nodiscard]] std::size_t bytes() const { return bytes_; }
    // The numbers of one micro-batch, one after the other in the layers' order, as bytes.
    [[nodiscard]] HostTensor of(std::uint32_t micro_batch) const;
    // Those of one that ran elsewhere. Errors: kRunFailed for another number of bytes.
    [[nodiscard]] Result<void> add(std::uint32_t micro_batch, HostTensor found);

    void commit();  // adds all that was found, and counts
    void discard() { found_.clear(); }

  private:
    struct Statistic {
        std::size_t layer = 0;
        RunningStatistic what;
    };
    const Layers* layers_ = nullptr;
    std::vector<Statistic> statistics_;
    std::size_t bytes_ = 0;
    std::map<std::uint32_t, HostTensor> found_;
};

}  // namespace ecopipe
