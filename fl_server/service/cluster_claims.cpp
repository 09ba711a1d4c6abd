#include "fl_server/service/cluster_claims.h"

namespace ecopipe {

ClusterClaims::Answer ClusterClaims::claim(const std::string& name, std::uint64_t instance,
                                           Instant now, Instant holder_heard) {
    Claim& claim = claims_[name];
    // One that has been away for as long begins anew, as one that it has never heard of does.
    if (claim.instance != instance || now - claim.last > silence_max_)
        claim = {.instance = instance, .since = now, .last = now};
    claim.last = now;
    return holder_heard > claim.since + silence_max_ ? Answer::kRefuse : Answer::kWait;
}

}  // namespace ecopipe
