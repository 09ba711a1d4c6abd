#include "stage_runtime/stage/worker.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <random>
#include <variant>

#include "core/command_line.h"
#include "core/host_facts.h"
#include "core/inbox.h"
#include "core/log.h"
#include "stage_runtime/engine/run/numeric_class.h"
#include "stage_runtime/stage/memory_room.h"
#include "stage_runtime/stage/portal_link.h"
#include "stage_runtime/stage/slow_switch.h"
#include "stage_runtime/stage/stage_driver.h"
#include "stage_runtime/stage/torch_compute.h"
#include "transport/data/data_plane.h"
#include "transport/net/zap_handler.h"

namespace ecopipe {
namespace {

// The driver with sockets, torch and a clock: what comes waits in the inbox, the calling thread
// hands it over and computes.
class Worker : public StageUplink {
  public:
    explicit Worker(const WorkerOptions& options)
        : options_(options),
          link_(loop_, activity_,
                {[this](const FrameHeader& header, std::vector<std::byte> body) {
                     inbox_.push(stage_input::Message{header, std::move(body)});
                 },
                 [this](Error error) { inbox_.push(stage_input::PortalLost{std::move(error)}); }}),
          data_(
              loop_, options.device,
              {[this](Delivery delivery) { inbox_.push(std::move(delivery)); },
               [this](const std::string& peer, std::uint64_t instance) {
                   inbox_.push(stage_input::PeerAttached{peer, instance});
               },
               [this] { ++activity_.progress; }, [this] { inbox_.push(stage_input::RoomMade{}); }}),
          compute_(options.models_directory,
                   [this] { return options_.slowdown * slow_switch_factor(); }) {}

    Result<ExitCode> run() {
        ECOPIPE_ASSIGN_OR_RETURN(numeric_class_, measure_numeric_class(options_.threads));
        use_keys(loop_, options_.security.keys);
        data_.set_security(options_.security);
        data_.set_portal(options_.portal_name);
        data_.emulate(options_.links, options_.link);
        ECOPIPE_ASSIGN_OR_RETURN(
            data_port_,
            data_.bind({options_.data_bind, static_cast<std::uint16_t>(options_.data_port)}));
        log_debug("{} listens for tensors on {}", options_.device,
                  Endpoint{options_.data_bind, data_port_}.place());
        StageDriver driver(
            {options_.device, options_.portal.text(), data_port_, options_.join_timeout_s},
            {*this, data_, compute_, monotonic_now, [this] { return next_sum(); },
             [this] { return room_.now(compute_.live_bytes()); }});
        for (;;) {
            const StageEnd ended = serve_one_run(driver);
            const Result<ExitCode>& result = ended.result;
            if (ended.taken_for_lost && signal_received() == 0) {
                log_warn("{}; joins again", result.error().message);
                continue;
            }
            if (signal_received() != 0) return static_cast<ExitCode>(128 + signal_received());
            const bool orphaned =
                !result && result.error().code == ExitCode::kUnreachable && driver.welcomed();
            if (!options_.stay && !(orphaned && options_.wait_when_orphaned)) return result;
            if (orphaned && !options_.wait_when_orphaned) return result;
            if (!result && !driver.welcomed()) return result;
            if (!result) log_error("{}", result.error().message);
            log_info("{} stays for the next run", options_.device);
        }
    }

    void send(const FrameHeader& header, StageMessage message) override {
        std::visit([&](const auto& body) { link_.send(header, body); }, message);
    }

  private:
    // Joins, works until the run ends.
    StageEnd serve_one_run(StageDriver& driver) {
        std::random_device device;  // an identity only
        const std::uint64_t instance = (std::uint64_t{device()} << 32) | device() | 1U;
        driver.join(instance);
        inbox_.clear();
        const Hello hello{.device = options_.device,
                          .program_version = kVersion,
                          .numeric_class = numeric_class_.hash,
                          .numeric_summary = numeric_class_.summary,
                          .cpu = cpu_name(),
                          .cores = core_count(),
                          .threads = static_cast<std::uint32_t>(options_.threads),
                          .memory_mib = available_memory_mib(),
                          .data_address = options_.data_address,
                          .data_port = data_port_,
                          .process_id = static_cast<std::uint64_t>(::getpid()),
                          .instance = instance};
        if (auto dialled = link_.dial(options_.portal, options_.portal_name, hello); !dialled)
            return {tl::unexpected<Error>(dialled.error())};
        log_info("{} joins {}", options_.device, options_.portal.text());
        while (!driver.ended()) turn(driver);
        link_.hang_up();
        data_.keep_only({}, 0);
        return *driver.ended();
    }

    std::optional<Delivery> next_sum() {
        auto found = inbox_.pop_if([](const StageInput& input) {
            const auto* delivery = std::get_if<Delivery>(&input);
            return delivery != nullptr && is_sum(delivery->address.kind);
        });
        if (!found) return std::nullopt;
        return std::move(std::get<Delivery>(*found));
    }

    // All that has come, then one piece of work.
    void turn(StageDriver& driver) {
        const Instant now = monotonic_now();
        Instant until = driver.next_action() ? now : now + kStageTick;
        while (auto event = inbox_.pop_until(until)) {
            driver.on(std::move(*event));
            until = now;
        }
        if (const int signal = signal_received(); signal != 0)
            driver.leave(signal == SIGINT ? "SIGINT" : "SIGTERM");
        driver.tick(activity_.progress);
        if (const auto next = driver.next_action()) {
            activity_.begin(next->step, next->micro_batch.value, monotonic_now());
            driver.work();
            activity_.end(monotonic_now());
        }
    }

    const WorkerOptions& options_;
    Inbox<StageInput> inbox_;
    ComputeActivity activity_;
    NetLoop loop_;
    PortalLink link_;
    DataPlane data_;
    TorchCompute compute_;
    MemoryRoom room_{options_.memory_budget};
    NumericClass numeric_class_;
    std::uint16_t data_port_ = 0;
};

}  // namespace

Result<ExitCode> run_worker(const WorkerOptions& options) { return Worker(options).run(); }

}  // namespace ecopipe
