#pragma once
// Measures this device's links when the portal asks, and answers when others do. One thread, pure.

#include <optional>
#include <string>

#include "stage_runtime/stage/link_probe.h"
#include "transport/data/tensor_channels.h"
#include "transport/wire/messages.h"

namespace ecopipe {

class LinkProber {
  public:
    explicit LinkProber(TensorChannels& channels) : channels_(channels) {}

    // Another measurement; what the channel still has to do until it stands is no part of the link.
    // Errors: kUsage for an address that may not be dialled.
    [[nodiscard]] Result<void> start(const ProbeLink& order, bool attached, Instant now);
    void attached(const std::string& peer, Instant now);
    // A tensor of kProbe: answered, or the answer to one. The result when it is there.
    [[nodiscard]] std::optional<LinkProbed> take(const Delivery& delivery, Instant now);
    void clear() { probe_.reset(); }

  private:
    void send(const std::string& peer, const ProbeSend& probe);

    TensorChannels& channels_;
    std::optional<LinkProbe> probe_;  // of the link to peer_, while it runs
    std::string peer_;
};

}  // namespace ecopipe
