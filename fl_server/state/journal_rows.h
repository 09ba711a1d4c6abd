#pragma once
// The rows of a federation's journal, as plain values: who only counts or decides needs no
// database.

#include <cstdint>
#include <string>

#include "core/strict_json.h"
#include "fl_server/numbers/update_check.h"

namespace ecopipe {

enum class UpdateState : std::uint8_t { kAdmitted = 0, kRejected = 1, kDropped = 2 };

struct UpdateRow {
    std::uint64_t task = 0;
    std::string cluster;
    std::uint64_t base_version = 0;
    std::uint64_t samples = 0;  // that it counts for
    std::uint64_t claimed = 0;  // that it claimed
    UpdateMeasure measure;
    std::string sha256;  // of the slices, in layer order, separated by blanks
    std::string spool;   // their files in the spool directory, likewise; "" once they are deleted
    std::string slice_bytes;
    UpdateState state = UpdateState::kAdmitted;
    std::string reason;
    double train_loss = 0;
    double seconds = 0;
    // The cluster's own test of the base version; 0 samples: none.
    std::uint64_t eval_samples = 0;
    double eval_loss = 0;
    double eval_accuracy = 0;
};

struct FoldRow {
    std::uint64_t id = 0;
    std::uint64_t task = 0;
    std::string cluster;
    std::uint32_t slot = 0;
    double weight = 0;
};

struct VersionRow {
    std::uint64_t version = 0;
    std::uint32_t group = 0;
    std::string sha256;
    Json recipe;
    std::uint64_t fold_through = 0;  // folds up to this one came before it
    std::string line;                // of rounds.jsonl, without evaluation until that is done
};

struct SiteRow {
    std::string cluster;
    std::uint64_t rejections = 0;
    std::uint64_t in_a_row = 0;
    bool quarantined = false;
    std::string reason;  // of the last rejection
};

}  // namespace ecopipe
