#include "orchestrator/session/name_claims.h"

namespace ecopipe {

NameClaims::Verdict NameClaims::asked(const std::string& device, std::string_view from,
                                      Instant now) {
    Claim& claim = claims_[device];
    if (claim.from != from) claim = {std::string(from), now, false};
    return claim.refuted ? Verdict::kTaken : Verdict::kWait;
}

void NameClaims::answered(const std::string& device, Instant sent) {
    const auto claim = claims_.find(device);
    if (claim != claims_.end() && sent >= claim->second.since) claim->second.refuted = true;
}

}  // namespace ecopipe
