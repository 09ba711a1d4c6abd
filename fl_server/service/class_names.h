#pragma once
// What the labels of a federation stand for. Class 0 of one site may be class 1 of another: every
// site's labels must be those of one list, which server.yaml says, or the evaluation data, or else
// the first site that has names. Pure.

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/strict_json.h"
#include "transport/wire/federation_messages.h"

namespace ecopipe {

struct ClassNames {
    std::vector<std::string> names;  // empty while nobody has told them
    std::string sha256;              // of the list, also when only its hash was told; "" for none

    // Errors: kUsage for a list that messages cannot carry.
    [[nodiscard]] static Result<ClassNames> of(std::vector<std::string> names);
    [[nodiscard]] bool known() const { return !sha256.empty(); }
    [[nodiscard]] std::string text() const;  // as a person reads it
};

[[nodiscard]] Json class_names_json(const ClassNames& classes);
// Errors: kBadFile.
[[nodiscard]] Result<ClassNames> class_names_from(const Json& json);

enum class ClassDecision {
    kTake,   // its labels are the list's, or it has no names
    kAdopt,  // its list is the federation's from now on
    kMap,    // it is to be sent the list
};
// What becomes of a cluster that says this of its classes. Errors: kUsage with why it is refused.
[[nodiscard]] Result<ClassDecision> judge_classes(const ClassNames& known,
                                                  const ClusterHello& hello);

}  // namespace ecopipe
