#include "stage_runtime/stage/slow_switch.h"

#include <signal.h>

namespace ecopipe {
namespace {

constexpr double kFactor = 3;
volatile sig_atomic_t slow = 0;

extern "C" void switch_speed(int number) { slow = number == SIGUSR1 ? 1 : 0; }

}  // namespace

void watch_slow_switch() {
    struct sigaction action{};
    action.sa_handler = switch_speed;
    action.sa_flags = SA_RESTART;
    ::sigaction(SIGUSR1, &action, nullptr);
    ::sigaction(SIGUSR2, &action, nullptr);
}

double slow_switch_factor() { return slow != 0 ? kFactor : 1; }

}  // namespace ecopipe
