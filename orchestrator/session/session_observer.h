#pragma once
// Who is told what happens to a cluster while it happens, for people to see.

#include <string>

#include "domain/plan.h"

namespace ecopipe {

// Called on the session's thread, between two messages: it must be quick and must not call back.
class SessionObserver {
  public:
    virtual ~SessionObserver() = default;
    virtual void device_joined(const std::string& device, double memory_mib) = 0;
    virtual void device_gone(const std::string& device, const std::string& how) = 0;
    virtual void device_leaves(const std::string& device) = 0;
    // All go back to a common state because of this.
    virtual void failed(const std::string& cause) = 0;
    // This is what runs where, from now on; `cause` is "" at the start.
    virtual void plan_in_force(const Plan& plan, const std::string& cause) = 0;
};

}  // namespace ecopipe
