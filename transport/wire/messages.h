#pragma once
// The messages between a portal and its stages, and between devices that exchange tensors. Each is
// a plain struct with its number, its fields in wire order (`serialize`), and `validate()`: the
// rule that decoding alone cannot check, as a reason, empty when all is well. docs/WIRE.md has an
// example of each. The federation's are in federation_messages.h.

#include <cstdint>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "core/memory_use.h"
#include "domain/layer_range.h"
#include "domain/loss.h"
#include "domain/optimizer_spec.h"
#include "domain/tensor_address.h"
#include "domain/tensor_codec.h"
#include "transport/security/key_file.h"
#include "transport/wire/frame.h"

namespace ecopipe {

// ---- membership
// ------------------------------------------------------------------------------------------------

// stage -> portal, first message.
struct Hello {
    static constexpr MessageType kType = MessageType::kHello;
    std::string device;
    std::string program_version;
    std::uint64_t numeric_class = 0;  // hash of a fixed forward-backward-update
    std::string numeric_summary;      // what the class comes from, for people
    std::string cpu;
    std::uint32_t cores = 1;
    std::uint32_t threads = 1;
    std::uint64_t memory_mib = 0;
    std::string data_address;  // "" lets the portal use the address that it knows for the device
    std::uint16_t data_port = 0;
    std::uint64_t process_id = 0;
    std::uint64_t instance = 0;  // drawn at start: a device that comes back is another instance

    template <class Archive>
    void serialize(Archive& ar) {
        ar(device, program_version, numeric_class, numeric_summary, cpu, cores, threads, memory_mib,
           data_address, data_port, process_id, instance);
    }
    [[nodiscard]] std::string validate() const;
};

// portal -> stage.
struct Welcome {
    static constexpr MessageType kType = MessageType::kWelcome;
    std::uint32_t ping_interval_ms = 0;
    std::uint32_t silence_max_ms = 0;  // a peer that says nothing for this long is lost

    template <class Archive>
    void serialize(Archive& ar) {
        ar(ping_interval_ms, silence_max_ms);
    }
    [[nodiscard]] std::string validate() const;
};

// "You may not take part": portal -> stage, or server -> cluster; the receiver ends with `code`. A
// stage that was welcomed and is refused with code 4 was taken for lost: it may join again.
struct Refuse {
    static constexpr MessageType kType = MessageType::kRefuse;
    std::uint8_t code = 1;
    std::string reason;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(code, reason);
    }
    [[nodiscard]] std::string validate() const;
};

// Heartbeat, either end to the other; times are each sender's monotonic nanoseconds, for clock
// offsets.
struct Ping {
    static constexpr MessageType kType = MessageType::kPing;
    std::int64_t sent_ns = 0;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(sent_ns);
    }
    [[nodiscard]] std::string validate() const { return {}; }
};

struct Pong {
    static constexpr MessageType kType = MessageType::kPong;
    std::int64_t echo_ns = 0;      // the ping's sent_ns
    std::int64_t local_ns = 0;     // the answerer's clock
    std::uint64_t progress = 0;    // rises with each action that is finished and chunk that arrives
    std::uint64_t busy_ns = 0;     // how long the action at hand has been computing; 0: waiting
    std::uint64_t longest_ns = 0;  // the longest finished action
    std::uint64_t step = 0;        // of the action at hand
    std::uint32_t micro_batch = 0;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(echo_ns, local_ns, progress, busy_ns, longest_ns, step, micro_batch);
    }
    [[nodiscard]] std::string validate() const { return {}; }
};

// ---- work
// ------------------------------------------------------------------------------------------------------

// A device that the receiver exchanges tensors with. The emulated link is 0 where the real one is
// used.
struct PeerAddress {
    std::string device;
    std::string endpoint;        // tcp://host:port of its data socket
    bool dial = false;           // the receiver dials; otherwise it waits to be dialled
    std::uint64_t instance = 0;  // a channel with an earlier instance does not count

    template <class Archive>
    void serialize(Archive& ar) {
        ar(device, endpoint, dial, instance);
    }
};

// portal -> stage: the work from now on. The generation is the header's, the step that of the
// state to start from. State that the receiver lacks follows on the data channels, from the portal
// or from other devices.
struct Configure {
    static constexpr MessageType kType = MessageType::kConfigure;
    std::string plan_json;
    std::string device;
    std::string model;         // zoo name, or ""
    std::string model_sha256;  // of the TorchScript file or the graph, or ""
    std::uint32_t num_classes = 0;
    std::vector<std::int64_t> input_shape;  // one sample
    std::vector<std::string> freeze;        // patterns of parameters that are not trained
    std::uint64_t seed = 0;
    OptimizerSpec optimizer;
    LossSpec loss;
    std::vector<PeerAddress> peers;
    std::vector<LayerTransfer> restore;  // every layer of this device that has state: from whom
    std::vector<LayerTransfer> supply;   // what this device gives to others
    bool keep_snapshots = false;         // keep the state of the recovery point, own and others'
    std::string buddy;                   // who keeps the replica of this device's snapshots, or ""
    std::string cause;                   // why there is a new configuration, for people
    std::uint32_t course = 0;  // with another one than before, nothing that is kept counts any more
    std::string graph;         // graph.json, whole; "" for other models
    bool frozen_norm_evaluates = false;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(plan_json, device, model, model_sha256, num_classes, input_shape, freeze, seed,
           optimizer, loss, peers, restore, supply, keep_snapshots, buddy, cause, course, graph,
           frozen_norm_evaluates);
    }
    [[nodiscard]] std::string validate() const;
};

// stage -> portal: configured, every peer attached, all state loaded.
struct Ready {
    static constexpr MessageType kType = MessageType::kReady;
    std::uint64_t state_bytes = 0;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(state_bytes);
    }
    [[nodiscard]] std::string validate() const { return {}; }
};

// portal -> stage: one step, or one evaluation that streams through. The step is the header's.
struct Begin {
    static constexpr MessageType kType = MessageType::kBegin;
    StepMode mode = StepMode::kTrain;
    std::vector<std::uint32_t> micro_batch_samples;
    double loss_divisor = 1;           // the batch's labels, or the sum of their weights
    std::uint64_t recovery_point = 0;  // snapshots of earlier steps may go
    bool trace = false;                // Done carries every action's time

    template <class Archive>
    void serialize(Archive& ar) {
        ar(mode, micro_batch_samples, loss_divisor, recovery_point, trace);
    }
    [[nodiscard]] std::string validate() const;
};

// One executed action, on the stage's own clock.
struct ActionTime {
    char kind = 'F';
    std::uint16_t slice = 0;
    std::uint32_t micro_batch = 0;
    std::int64_t start_ns = 0;
    std::int64_t end_ns = 0;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(kind, slice, micro_batch, start_ns, end_ns);
    }
};

struct MicroBatchLoss {
    std::uint32_t micro_batch = 0;
    LossTotals loss;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(micro_batch, loss);
    }
};

// stage -> portal, before a Done that would become too long: the next of the step's actions and of
// its losses.
struct Trace {
    static constexpr MessageType kType = MessageType::kTrace;
    std::vector<ActionTime> actions;
    std::vector<MicroBatchLoss> losses{};

    template <class Archive>
    void serialize(Archive& ar) {
        ar(actions, losses);
    }
    [[nodiscard]] std::string validate() const { return {}; }
};

// stage -> portal: all actions of the step are done; nothing of the step is in the weights yet.
struct Done {
    static constexpr MessageType kType = MessageType::kDone;
    LossTotals loss;                             // of a last stage that one device holds
    std::vector<double> squared_gradient_norms;  // one a layer of this stage, in layer order
    std::int32_t nonfinite_layer = -1;           // first layer with a non-finite gradient, or -1
    double busy_ms = 0;
    double wait_ms = 0;
    MemoryByUse peak_memory;  // bytes of tensors, when most were alive since the last report
    std::uint64_t sent_bytes = 0;
    std::vector<ActionTime> actions;  // the last ones; those before came in Trace
    // Of a last stage that several hold: this one's own, the last ones.
    std::vector<MicroBatchLoss> losses;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(loss, squared_gradient_norms, nonfinite_layer, busy_ms, wait_ms, peak_memory, sent_bytes,
           actions, losses);
    }
    [[nodiscard]] std::string validate() const;
};

// portal -> stage: every stage is done; apply the update.
struct Commit {
    static constexpr MessageType kType = MessageType::kCommit;
    double learning_rate = 0;
    double gradient_scale = 1;  // below 1 when the norm is clipped
    bool snapshot = false;      // keep the state after the update, and give the buddy a replica

    template <class Archive>
    void serialize(Archive& ar) {
        ar(learning_rate, gradient_scale, snapshot);
    }
    [[nodiscard]] std::string validate() const;
};

// stage -> portal.
struct Committed {
    static constexpr MessageType kType = MessageType::kCommitted;
    double update_ms = 0;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(update_ms);
    }
    [[nodiscard]] std::string validate() const { return {}; }
};

// stage -> portal: this process now holds these layers' state of the header's step, its own or
// another's.
struct Stored {
    static constexpr MessageType kType = MessageType::kStored;
    std::uint32_t first_layer = 0;
    std::uint32_t last_layer = 0;  // inclusive

    template <class Archive>
    void serialize(Archive& ar) {
        ar(first_layer, last_layer);
    }
    [[nodiscard]] std::string validate() const;
};

// stage -> portal: this device is about to leave (SIGTERM) and works on until its layers are
// elsewhere; then it is told the End.
struct Leave {
    static constexpr MessageType kType = MessageType::kLeave;
    std::string reason;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(reason);
    }
    [[nodiscard]] std::string validate() const;
};

// stage -> portal: these devices' channels do not stand, long after Configure named them.
struct Unreached {
    static constexpr MessageType kType = MessageType::kUnreached;
    std::vector<std::string> devices;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(devices);
    }
    [[nodiscard]] std::string validate() const;
};

// portal -> stage, with keys: who the other devices are, all of them each time. Only these may
// connect to the receiver's data port from now on, besides the peers that its own files allow.
struct Introduction {
    std::string device;
    std::string public_key;  // Z85

    template <class Archive>
    void serialize(Archive& ar) {
        ar(device, public_key);
    }
};
struct Introduce {
    static constexpr MessageType kType = MessageType::kIntroduce;
    std::vector<Introduction> peers;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(peers);
    }
    [[nodiscard]] std::string validate() const;
};

// portal -> stage: measure the link to a peer, over the data channel that tensors will take.
struct ProbeLink {
    static constexpr MessageType kType = MessageType::kProbeLink;
    std::string peer;
    std::string endpoint;  // tcp://host:port of its data socket

    template <class Archive>
    void serialize(Archive& ar) {
        ar(peer, endpoint);
    }
    [[nodiscard]] std::string validate() const;
};

// stage -> portal: what was found.
struct LinkProbed {
    static constexpr MessageType kType = MessageType::kLinkProbed;
    std::string peer;
    double mbps = 0;
    double latency_ms = 0;  // one way: half of the shortest round trip

    template <class Archive>
    void serialize(Archive& ar) {
        ar(peer, mbps, latency_ms);
    }
    [[nodiscard]] std::string validate() const;
};

// stage -> portal: from the header's step on this device recomputes otherwise, or has become short
// of memory, or no longer is.
struct MemoryMoved {
    static constexpr MessageType kType = MessageType::kMemoryMoved;
    std::uint64_t budget_bytes = 0;  // what its tensors may take
    std::uint64_t needed_bytes = 0;  // what they take
    double recompute_ms = 0;         // of a micro-batch

    template <class Archive>
    void serialize(Archive& ar) {
        ar(budget_bytes, needed_bytes, recompute_ms);
    }
    [[nodiscard]] std::string validate() const;
};

// portal -> stage: send your layers' state to the portal over the data channel, then Fetched.
struct Fetch {
    static constexpr MessageType kType = MessageType::kFetch;
    bool optimizer_state = false;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(optimizer_state);
    }
    [[nodiscard]] std::string validate() const { return {}; }
};

struct Fetched {
    static constexpr MessageType kType = MessageType::kFetched;
    std::uint32_t state_tensors = 0;
    MemoryByUse peak_memory{};  // as in Done

    template <class Archive>
    void serialize(Archive& ar) {
        ar(state_tensors, peak_memory);
    }
    [[nodiscard]] std::string validate() const { return {}; }
};

// stage -> portal: this stage cannot go on; the step and micro-batch are the header's.
struct Failed {
    static constexpr MessageType kType = MessageType::kFailed;
    std::uint8_t code = 1;
    std::string reason;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(code, reason);
    }
    [[nodiscard]] std::string validate() const;
};

// portal -> stage: the run is over; code 0 when it went well, else every stage ends with `reason`.
struct End {
    static constexpr MessageType kType = MessageType::kEnd;
    std::uint8_t code = 0;
    std::string reason;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(code, reason);
    }
    [[nodiscard]] std::string validate() const;
};

// ---- tensors
// ---------------------------------------------------------------------------------------------------

// First message of the dialling end of a data channel.
struct Attach {
    static constexpr MessageType kType = MessageType::kAttach;
    std::string device;
    std::uint64_t instance = 0;  // of the sender

    template <class Archive>
    void serialize(Archive& ar) {
        ar(device, instance);
    }
    [[nodiscard]] std::string validate() const;
};

// The answer to Attach; from then on tensors flow both ways.
struct Attached {
    static constexpr MessageType kType = MessageType::kAttached;
    std::string device;
    std::uint64_t instance = 0;  // of the sender
    bool fresh = false;          // nothing of an earlier connection counts: credits begin anew

    template <class Archive>
    void serialize(Archive& ar) {
        ar(device, instance, fresh);
    }
    [[nodiscard]] std::string validate() const;
};

// A piece of a tensor; the payload frame holds bytes [offset, offset + payload). Step, generation,
// slice and micro-batch are the header's; `producer` is the layer that made the tensor (for a
// gradient: the layer whose output it belongs to; for state: the layer that it is of, and `output`
// counts that layer's tensors).
struct TensorChunk {
    static constexpr MessageType kType = MessageType::kTensorChunk;
    TensorKind kind = TensorKind::kActivation;
    std::uint32_t producer = 0;
    std::uint16_t output = 0;   // index among the producer's outputs
    std::uint16_t outputs = 1;  // how many there are
    bool gradient_returns = false;
    std::string name;           // of a state tensor, else ""
    DType dtype = DType::kF32;  // of the bytes on the wire
    std::vector<std::int64_t> shape;
    std::uint64_t offset = 0;
    TensorCodec codec = TensorCodec::kNone;  // float32 tensors only
    float scale = 1;                         // of int8

    template <class Archive>
    void serialize(Archive& ar) {
        ar(kind, producer, output, outputs, gradient_returns, name, dtype, shape, offset, codec,
           scale);
    }
    [[nodiscard]] std::string validate() const;
};

// receiver -> sender: you may have this many more payload bytes under way.
struct Credit {
    static constexpr MessageType kType = MessageType::kCredit;
    std::uint64_t bytes = 0;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(bytes);
    }
    [[nodiscard]] std::string validate() const;
};

}  // namespace ecopipe
