#include "transport/wire/messages.h"

#include <cmath>

#include "core/utf8.h"
#include "transport/limits.h"

namespace ecopipe {
namespace {

std::string check_name(const std::string& name) {
    if (name.empty() || name.size() > kNameBytesMax) return "a device name of 1 to 128 bytes";
    for (const char c : name)
        if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7F)
            return "a device name without blanks";
    return is_utf8(name) ? "" : "a device name in UTF-8";
}

std::string check_reason(std::uint8_t code, const std::string& reason) {
    return code <= 5 && reason.size() <= kReasonBytesMax && is_utf8(reason)
               ? ""
               : "a known code and a short reason";
}

std::string check_layers(std::uint32_t first, std::uint32_t last) {
    return first <= last && last < kWireLayersMax ? "" : "a range of layers";
}

std::string check_transfer(const LayerTransfer& transfer) {
    if (auto problem = check_layers(transfer.first_layer, transfer.last_layer); !problem.empty())
        return problem;
    return check_name(transfer.peer);
}

}  // namespace

std::string Hello::validate() const {
    if (auto problem = check_name(device); !problem.empty()) return problem;
    if (threads < 1 || threads > 1024) return "1 to 1024 threads";
    if (program_version.size() > kNameBytesMax || numeric_summary.size() > kReasonBytesMax ||
        cpu.size() > kReasonBytesMax || data_address.size() > kReasonBytesMax)
        return "texts within their limits";
    for (const std::string* text : {&program_version, &numeric_summary, &cpu, &data_address})
        if (!is_utf8(*text)) return "texts in UTF-8";
    return data_port == 0 ? "a data port" : "";
}

std::string Welcome::validate() const {
    return ping_interval_ms > 0 && silence_max_ms > ping_interval_ms
               ? ""
               : "a silence above the interval";
}

std::string Refuse::validate() const { return check_reason(code, reason); }
std::string Failed::validate() const { return check_reason(code, reason); }
std::string End::validate() const { return check_reason(code, reason); }
std::string Stored::validate() const { return check_layers(first_layer, last_layer); }
std::string Leave::validate() const {
    return reason.size() <= kReasonBytesMax && is_utf8(reason) ? "" : "a short reason";
}
std::string Unreached::validate() const {
    if (devices.empty()) return "at least one device";
    for (const std::string& device : devices)
        if (auto problem = check_name(device); !problem.empty()) return problem;
    return "";
}
std::string Attach::validate() const { return check_name(device); }
std::string Attached::validate() const { return check_name(device); }
std::string Credit::validate() const { return bytes <= (1ULL << 40) ? "" : "a credit below 2^40"; }

std::string Configure::validate() const {
    if (auto problem = check_name(device); !problem.empty()) return problem;
    if (model.empty() == model_sha256.empty()) return "either a zoo name or a file hash";
    if (!optimizer.known()) return "a known optimiser";
    if (!std::isfinite(optimizer.momentum) || !std::isfinite(optimizer.weight_decay) ||
        !(optimizer.proximal_mu >= 0) || !std::isfinite(optimizer.proximal_mu))
        return "finite optimiser numbers";
    if (loss.class_weights.size() > kClassWeightsMax) return "at most 1000000 class weights";
    for (const double weight : loss.class_weights)
        if (!(weight >= 0) || !std::isfinite(weight)) return "finite class weights, none below 0";
    if (!checked_bytes(DType::kF32, input_shape)) return "a valid input shape";
    if (freeze.size() > kPatternsMax) return "at most 256 patterns";
    for (const std::string& pattern : freeze)
        if (pattern.empty() || pattern.size() > kNameBytesMax)
            return "patterns within their limits";
    for (const PeerAddress& peer : peers)
        if (auto problem = check_name(peer.device); !problem.empty()) return problem;
    for (const auto* transfers : {&restore, &supply})
        for (const LayerTransfer& transfer : *transfers)
            if (auto problem = check_transfer(transfer); !problem.empty()) return problem;
    if (!buddy.empty()) return check_name(buddy);
    return cause.size() <= kReasonBytesMax ? "" : "a short cause";
}

std::string Begin::validate() const {
    if (mode != StepMode::kTrain && mode != StepMode::kEvaluate) return "a known mode";
    if (micro_batch_samples.empty() || micro_batch_samples.size() > kStepMicroBatchesMax)
        return "1 to 2^20 micro-batches";
    for (const std::uint32_t samples : micro_batch_samples)
        if (samples == 0) return "no empty micro-batch";
    return std::isfinite(loss_divisor) && loss_divisor > 0 ? "" : "a positive loss divisor";
}

std::string Done::validate() const { return nonfinite_layer >= -1 ? "" : "a layer or -1"; }

std::string Commit::validate() const {
    return std::isfinite(learning_rate) && std::isfinite(gradient_scale) ? "" : "finite scalars";
}

std::string ProbeLink::validate() const {
    if (auto problem = check_name(peer); !problem.empty()) return problem;
    return endpoint.empty() || endpoint.size() > kReasonBytesMax ? "the peer's address" : "";
}

std::string Introduce::validate() const {
    if (peers.size() > kIntroducedMax) return "at most 1024 devices";
    for (const Introduction& peer : peers) {
        if (auto problem = check_name(peer.device); !problem.empty()) return problem;
        if (peer.public_key.size() != kKeyTextBytes) return "a key of 40 characters";
    }
    return {};
}

std::string LinkProbed::validate() const {
    if (auto problem = check_name(peer); !problem.empty()) return problem;
    return mbps > 0 && mbps <= 1e9 && latency_ms >= 0 && latency_ms <= 1e9 ? ""
                                                                           : "a rate and a latency";
}

std::string MemoryMoved::validate() const {
    return recompute_ms >= 0 && recompute_ms <= 1e12 ? "" : "a time";
}

std::string TensorChunk::validate() const {
    if (kind < TensorKind::kActivation || kind > TensorKind::kStatistics) return "a known kind";
    if (!dtype_from(static_cast<std::uint8_t>(dtype))) return "a known dtype";
    const auto bytes = checked_bytes(dtype, shape);
    if (!bytes || *bytes > (1ULL << 40)) return "a valid shape";
    if (offset > *bytes) return "an offset inside the tensor";
    if (outputs == 0 || output >= outputs || (outputs > kOutputsMax && !is_state(kind)))
        return "1 to 64 outputs";
    const bool named = is_state(kind) || is_tied(kind);
    const bool may_be = kind == TensorKind::kGradientSum || kind == TensorKind::kGradientTotal;
    if (name.size() > kStateNameBytesMax || (!may_be && named == name.empty()))
        return "a name for state only";
    if (codec > TensorCodec::kInt8) return "a known codec";
    if (codec != TensorCodec::kNone && dtype != encoded_dtype(codec))
        return "the codec's element type";
    // Decoded, it takes more: dimensions that are one byte short of too many must not pass.
    const auto decoded = checked_bytes(codec == TensorCodec::kNone ? dtype : DType::kF32, shape);
    if (!decoded || *decoded > (1ULL << 40)) return "a valid shape once decoded";
    return {};
}

}  // namespace ecopipe
