#pragma once
// The messages between clusters and the federation's server. Same rules as messages.h; examples in
// docs/WIRE.md.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/host_tensor.h"
#include "transport/wire/frame.h"

namespace ecopipe {

struct KeyValue {
    std::string key;
    std::string value;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(key, value);
    }
};

// A tensor's place in the flat bytes of a model: tensors follow one another in this order without
// gaps.
struct TensorEntry {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<std::int64_t> shape;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(name, dtype, shape);
    }
};

// cluster -> server, until welcomed; again after silence, and while it has nothing to do.
struct ClusterHello {
    static constexpr MessageType kType = MessageType::kClusterHello;
    std::string cluster;
    std::string program_version;
    std::string model;           // as plans name it
    std::uint64_t instance = 0;  // one number a client process: a reconnect is not a second cluster
    std::uint64_t samples = 0;
    std::vector<std::uint64_t> label_counts;  // one a class; empty when not told
    std::uint64_t working_on = 0;      // the task that it trains or whose update it keeps; 0: none
    std::uint64_t epoch = 0;           // that task's
    std::uint32_t class_count = 0;     // its labels are from 0 to one less; 0: they are no classes
    std::vector<std::string> classes;  // what they stand for, in order; empty when not told
    std::string classes_sha256;  // of that list, told or not (`classes_hash`); "": without names
    bool tests = false;          // it tests the models that it gets, when asked

    template <class Archive>
    void serialize(Archive& ar) {
        ar(cluster, program_version, model, instance, samples, label_counts, working_on, epoch,
           class_count, classes, classes_sha256, tests);
    }
    [[nodiscard]] std::string validate() const;
};

// server -> cluster. `client` is the configuration that every task repeats: epochs, batch, lr, ...
// `epoch` is the federation's: another one than before says that its state was restored, and that
// the numbers of tasks and versions of before mean nothing any more.
struct ClusterWelcome {
    static constexpr MessageType kType = MessageType::kClusterWelcome;
    std::uint32_t ping_interval_ms = 0;
    std::uint32_t silence_max_ms = 0;
    std::vector<KeyValue> client;
    std::uint64_t epoch = 0;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(ping_interval_ms, silence_max_ms, client, epoch);
    }
    [[nodiscard]] std::string validate() const;
};

// server -> cluster, in place of the welcome: its labels stand for other classes than the
// federation's, or for the same in another order. The cluster maps them to this list and says Hello
// again with its hash.
struct ClassList {
    static constexpr MessageType kType = MessageType::kClassList;
    std::vector<std::string> classes;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(classes);
    }
    [[nodiscard]] std::string validate() const;
};

// server -> cluster: train from this version. The cluster pulls the model chunk by chunk. A task
// that the cluster does not say to work on is sent again, under the same number.
struct Task {
    static constexpr MessageType kType = MessageType::kTask;
    std::uint64_t sequence =
        0;  // the task's number in the federation, from 1; its update has it too
    std::uint64_t round = 0;
    std::uint64_t base_version = 0;
    std::vector<KeyValue> client;
    std::vector<TensorEntry> tensors;
    std::string sha256;        // of the model's flat bytes
    std::uint64_t epoch = 0;   // of the federation
    std::uint32_t repeat = 0;  // tasks of this version that the cluster had before: each is another
                               // draw of its batches and dropout

    template <class Archive>
    void serialize(Archive& ar) {
        ar(sequence, round, base_version, client, tensors, sha256, epoch, repeat);
    }
    [[nodiscard]] std::string validate() const;
};

struct ModelRequest {
    static constexpr MessageType kType = MessageType::kModelRequest;
    std::uint64_t version = 0;
    std::uint64_t offset = 0;
    std::uint32_t bytes = 0;
    std::uint64_t received =
        0;  // bytes before this have arrived: the server's memory counts the rest

    template <class Archive>
    void serialize(Archive& ar) {
        ar(version, offset, bytes, received);
    }
    [[nodiscard]] std::string validate() const;
};

struct ModelChunk {
    static constexpr MessageType kType = MessageType::kModelChunk;
    std::uint64_t version = 0;
    std::uint64_t offset = 0;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(version, offset);
    }
    [[nodiscard]] std::string validate() const { return {}; }
};

enum class UpdateEncoding : std::uint8_t { kWeightsFp32 = 0 };

// cluster -> server: one slice of a finished update is about to follow, in chunks, as far as the
// server grants. The evaluation is of the model that the task started from, on the cluster's own
// held-out data.
struct UpdateSlice {
    static constexpr MessageType kType = MessageType::kUpdateSlice;
    std::uint64_t base_version = 0;
    std::uint64_t sequence = 0;  // of the task
    std::uint16_t slice = 0;
    std::uint16_t slices = 1;
    std::uint32_t first_layer = 0;
    std::uint32_t last_layer = 0;
    UpdateEncoding encoding = UpdateEncoding::kWeightsFp32;
    std::uint64_t samples = 0;
    double train_loss = 0;
    double seconds = 0;  // from task to update
    std::uint64_t bytes = 0;
    std::string sha256;              // of the slice's bytes
    std::uint64_t eval_samples = 0;  // 0: not evaluated
    double eval_loss = 0;            // a sample
    double eval_accuracy = 0;        // 0..1
    std::uint64_t epoch = 0;         // of the task

    template <class Archive>
    void serialize(Archive& ar) {
        ar(base_version, sequence, slice, slices, first_layer, last_layer, encoding, samples,
           train_loss, seconds, bytes, sha256, eval_samples, eval_loss, eval_accuracy, epoch);
    }
    [[nodiscard]] std::string validate() const;
};

struct UpdateChunk {
    static constexpr MessageType kType = MessageType::kUpdateChunk;
    std::uint64_t sequence = 0;
    std::uint16_t slice = 0;
    std::uint64_t offset = 0;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(sequence, slice, offset);
    }
    [[nodiscard]] std::string validate() const { return {}; }
};

// server -> cluster: chunks of the slice from `offset` up to `until` may be sent; what was sent
// beyond `offset` before is lost. With a reason nothing is taken now: the cluster keeps the update
// and waits.
struct UploadGrant {
    static constexpr MessageType kType = MessageType::kUploadGrant;
    std::uint64_t sequence = 0;
    std::uint16_t slice = 0;
    std::uint64_t offset = 0;
    std::uint64_t until = 0;
    std::string reason;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(sequence, slice, offset, until, reason);
    }
    [[nodiscard]] std::string validate() const;
};

// cluster -> server, in the middle of a task: its pipeline lost or won a device, and this is how
// long a task will take from now on.
struct ClusterStatus {
    static constexpr MessageType kType = MessageType::kClusterStatus;
    double latency_s = 0;
    bool degraded = false;
    std::string note;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(latency_s, degraded, note);
    }
    [[nodiscard]] std::string validate() const;
};

// server -> cluster: what became of an update. The cluster keeps it until then.
struct Verdict {
    static constexpr MessageType kType = MessageType::kVerdict;
    std::uint64_t sequence = 0;
    bool accepted = false;
    std::string reason;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(sequence, accepted, reason);
    }
    [[nodiscard]] std::string validate() const;
};

// server -> cluster: the federation is over.
struct FederationEnd {
    static constexpr MessageType kType = MessageType::kFederationEnd;
    std::uint8_t code = 0;
    std::string reason;

    template <class Archive>
    void serialize(Archive& ar) {
        ar(code, reason);
    }
    [[nodiscard]] std::string validate() const;
};

// SHA-256 of a list of classes: each name's length (u32, little-endian) and bytes, in order. "" for
// none.
[[nodiscard]] std::string classes_hash(const std::vector<std::string>& classes);
// "" for a list that messages can carry; else what is expected of one.
[[nodiscard]] std::string check_classes(const std::vector<std::string>& classes);

// The flat bytes that a list of entries describes; nothing when an entry is invalid or the sum
// overflows.
[[nodiscard]] std::optional<std::size_t> flat_bytes(const std::vector<TensorEntry>& entries);
[[nodiscard]] std::vector<TensorEntry> entries_of(const TensorMap& tensors);
[[nodiscard]] std::string flatten(const TensorMap& tensors);
// `bytes` must be flat_bytes(entries) long.
[[nodiscard]] TensorMap unflatten(const std::vector<TensorEntry>& entries, std::string_view bytes);

}  // namespace ecopipe
