#include "stage_runtime/engine/model/graph/operator_argument.h"

#include <ATen/ScalarOps.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "stage_runtime/engine/model/tensor_bridge.h"

namespace ecopipe {

namespace {

using c10::TypeKind;

tl::unexpected<Error> expected(const std::string& what) {
    return fail(ExitCode::kBadFile, "expected " + what);
}

}  // namespace

Result<OperatorArgument> OperatorArgument::make(const GraphArgument& given,
                                                const c10::TypePtr& type) {
    OperatorArgument argument;
    ECOPIPE_RETURN_IF_ERROR(argument.read(given, type));
    return finished(std::move(argument));
}

Result<OperatorArgument> OperatorArgument::make(const GraphArgument& given,
                                                const c10::Argument& place) {
    OperatorArgument argument;
    ECOPIPE_RETURN_IF_ERROR(argument.read(given, place.real_type()));
    ECOPIPE_RETURN_IF_ERROR(argument.as_python_does(place));
    return finished(std::move(argument));
}

OperatorArgument OperatorArgument::of_default(c10::IValue value) {
    OperatorArgument argument;
    argument.constant_ = std::move(value);
    return argument;
}

c10::IValue OperatorArgument::value(const NodeFrame& frame) const {
    return varies_ ? build(frame) : constant_;
}

OperatorArgument OperatorArgument::finished(OperatorArgument argument) {
    if (!argument.varies_) {
        const Tensors none;
        const std::vector<LayerTensor> no_tensors;
        argument.constant_ = argument.build({none, no_tensors, {}, 1, false});
    }
    return argument;
}

Result<void> OperatorArgument::as_python_does(const c10::Argument& place) {
    if (kind_ == Kind::kModes) {
        for (OperatorArgument& literal : parts_)
            ECOPIPE_RETURN_IF_ERROR(literal.as_python_does(place));
        return {};
    }
    const std::string& name = place.name();
    // "To the end"; as a size it would overflow.
    const auto too_large = [](const OperatorArgument& argument) {
        const auto* size = std::get_if<GraphSize>(&argument.given_.what);
        return size != nullptr && size->number > kGraphNumberMax;
    };
    if (name != "start" && name != "end" &&
        (too_large(*this) || std::any_of(parts_.begin(), parts_.end(), too_large)))
        return expected(fmt::format("numbers of at most {}", kGraphNumberMax));
    if (name.starts_with("sparse") && kind_ == Kind::kBool && std::get<bool>(given_.what))
        return expected("false: gradients are dense here");
    // int[2] with one number is twice that; int[1] stands for any number of them.
    const auto count = static_cast<std::size_t>(place.N().value_or(1));
    if (kind_ != Kind::kIntegers || count < 2 || parts_.size() == count) return {};
    if (parts_.empty() && place.default_value() && place.default_value()->isIntList() &&
        place.default_value()->toIntVector().empty())
        return {};
    if (parts_.size() != 1) return expected(fmt::format("{} numbers", count));
    parts_.resize(count, parts_.front());
    return {};
}

Result<void> OperatorArgument::read(const GraphArgument& given, const c10::TypePtr& type) {
    given_ = given;
    if (const auto* modes = std::get_if<GraphArgument::Modes>(&given.what)) {
        kind_ = Kind::kModes;
        varies_ = true;
        for (const GraphArgument& literal : modes->literals) {
            OperatorArgument each;
            ECOPIPE_RETURN_IF_ERROR(each.read(literal, type));
            parts_.push_back(std::move(each));
        }
        return {};
    }
    if (std::holds_alternative<graph_argument::None>(given.what)) {
        kind_ = Kind::kNone;
        if (type->kind() != TypeKind::OptionalType && type->kind() != TypeKind::NoneType)
            return expected(type->str());
        return {};
    }
    if (type->kind() == TypeKind::OptionalType)
        return read(given, type->castRaw<c10::OptionalType>()->getElementType());
    if (type->kind() == TypeKind::ListType) return read_list(given, type);
    return read_one(given, type);
}

Result<void> OperatorArgument::read_one(const GraphArgument& given, const c10::TypePtr& type) {
    const auto* size = std::get_if<GraphSize>(&given.what);
    const auto* number = std::get_if<double>(&given.what);
    const auto* flag = std::get_if<bool>(&given.what);
    const bool reference = std::holds_alternative<graph_argument::Value>(given.what) ||
                           std::holds_alternative<graph_argument::Local>(given.what) ||
                           std::holds_alternative<graph_argument::Tensor>(given.what);
    switch (type->kind()) {
        case TypeKind::TensorType:
            if (reference) {
                kind_ = Kind::kTensor;
                varies_ = true;
                return {};
            }
            if ((size == nullptr || size->of_batch) && number == nullptr && flag == nullptr)
                return expected("a tensor");
            kind_ = Kind::kNumberTensor;
            return {};
        case TypeKind::IntType:
        case TypeKind::SymIntType:
            if (size == nullptr) return expected("a whole number");
            kind_ = Kind::kInteger;
            varies_ = size->of_batch;
            return {};
        case TypeKind::FloatType:
            if (number == nullptr && (size == nullptr || size->of_batch))
                return expected("a number");
            kind_ = Kind::kNumber;
            return {};
        case TypeKind::BoolType:
            if (flag == nullptr) return expected("true or false");
            kind_ = Kind::kBool;
            return {};
        case TypeKind::NumberType:
            kind_ = size != nullptr     ? Kind::kInteger
                    : number != nullptr ? Kind::kNumber
                                        : Kind::kBool;
            if (kind_ == Kind::kBool && flag == nullptr) return expected("a number");
            varies_ = size != nullptr && size->of_batch;
            return {};
        case TypeKind::StringType:
            if (!std::holds_alternative<std::string>(given.what)) return expected("a text");
            kind_ = Kind::kText;
            return {};
        default:
            return read_special(given, type);
    }
}

// Which numbers these are torch does not check.
Result<void> OperatorArgument::read_special(const GraphArgument& given, const c10::TypePtr& type) {
    const bool known = type->kind() == TypeKind::ScalarTypeType
                           ? std::holds_alternative<graph_argument::Type>(given.what)
                       : type->kind() == TypeKind::MemoryFormatType
                           ? std::holds_alternative<graph_argument::MemoryLayout>(given.what)
                           : false;
    if (!known) return expected(type->str());
    kind_ = Kind::kInteger;
    return {};
}

Result<void> OperatorArgument::read_list(const GraphArgument& given, const c10::TypePtr& type) {
    const c10::TypePtr element = type->castRaw<c10::ListType>()->getElementType();
    const bool optional = element->kind() == TypeKind::OptionalType;
    const c10::TypePtr plain =
        optional ? element->castRaw<c10::OptionalType>()->getElementType() : element;
    switch (plain->kind()) {
        case TypeKind::IntType:
        case TypeKind::SymIntType:
            kind_ = Kind::kIntegers;
            break;
        case TypeKind::FloatType:
            kind_ = Kind::kNumbers;
            break;
        case TypeKind::BoolType:
            kind_ = Kind::kBools;
            break;
        case TypeKind::TensorType:
            kind_ = optional ? Kind::kOptionalTensors : Kind::kTensors;
            break;
        default:
            return expected(type->str());
    }
    const auto* list = std::get_if<GraphArgument::List>(&given.what);
    if (list == nullptr) {
        // int[2] takes one number for both.
        if (kind_ != Kind::kIntegers || !std::holds_alternative<GraphSize>(given.what))
            return expected("a list");
        OperatorArgument only;
        ECOPIPE_RETURN_IF_ERROR(only.read(given, element));
        varies_ = only.varies_;
        parts_.push_back(std::move(only));
        return {};
    }
    for (const GraphArgument& each : *list) {
        OperatorArgument part;
        ECOPIPE_RETURN_IF_ERROR(part.read(each, element));
        if (part.kind_ == Kind::kNumberTensor) return expected("a list of tensors");
        varies_ = varies_ || part.varies_;
        parts_.push_back(std::move(part));
    }
    return {};
}

at::Tensor OperatorArgument::tensor(const NodeFrame& frame) const {
    if (const auto* value = std::get_if<graph_argument::Value>(&given_.what))
        return frame.inputs[static_cast<std::size_t>(value->input)];
    if (const auto* local = std::get_if<graph_argument::Local>(&given_.what))
        return frame.locals[static_cast<std::size_t>(local->number)];
    const auto& own = std::get<graph_argument::Tensor>(given_.what);
    return frame.tensors[static_cast<std::size_t>(own.tensor)].tensor;
}

std::int64_t OperatorArgument::integer(const NodeFrame& frame) const {
    if (const auto* size = std::get_if<GraphSize>(&given_.what)) return size->at(frame.batch);
    if (const auto* type = std::get_if<graph_argument::Type>(&given_.what))
        return static_cast<std::int64_t>(scalar_type_of(type->dtype));
    switch (std::get<graph_argument::MemoryLayout>(given_.what)) {
        case graph_argument::MemoryLayout::kContiguous:
            return static_cast<std::int64_t>(at::MemoryFormat::Contiguous);
        case graph_argument::MemoryLayout::kPreserve:
            return static_cast<std::int64_t>(at::MemoryFormat::Preserve);
        case graph_argument::MemoryLayout::kChannelsLast:
            return static_cast<std::int64_t>(at::MemoryFormat::ChannelsLast);
        case graph_argument::MemoryLayout::kChannelsLast3d:
            break;
    }
    return static_cast<std::int64_t>(at::MemoryFormat::ChannelsLast3d);
}

double OperatorArgument::number() const {
    if (const auto* size = std::get_if<GraphSize>(&given_.what))
        return static_cast<double>(size->number);
    return std::get<double>(given_.what);
}

at::Tensor OperatorArgument::number_tensor() const {
    c10::Scalar scalar;
    if (const auto* flag = std::get_if<bool>(&given_.what))
        scalar = *flag;
    else if (const auto* size = std::get_if<GraphSize>(&given_.what))
        scalar = size->number;
    else
        scalar = std::get<double>(given_.what);
    // As Python hands over a number: it does not decide the result's type.
    at::Tensor made = at::scalar_to_tensor(scalar);
    made.unsafeGetTensorImpl()->set_wrapped_number(true);
    return made;
}

c10::IValue OperatorArgument::build(const NodeFrame& frame) const {
    switch (kind_) {
        case Kind::kNone:
            return {};
        case Kind::kInteger:
            return integer(frame);
        case Kind::kNumber:
            return number();
        case Kind::kBool:
            return std::get<bool>(given_.what);
        case Kind::kText:
            return std::get<std::string>(given_.what);
        case Kind::kTensor:
            return tensor(frame);
        case Kind::kNumberTensor:
            return number_tensor();
        case Kind::kModes:
            return parts_[frame.training ? 0 : 1].build(frame);
        case Kind::kIntegers: {
            c10::List<std::int64_t> list;
            for (const OperatorArgument& part : parts_) list.push_back(part.integer(frame));
            return list;
        }
        case Kind::kNumbers: {
            c10::List<double> list;
            for (const OperatorArgument& part : parts_) list.push_back(part.number());
            return list;
        }
        case Kind::kBools: {
            c10::List<bool> list;
            for (const OperatorArgument& part : parts_)
                list.push_back(std::get<bool>(part.given_.what));
            return list;
        }
        case Kind::kTensors: {
            c10::List<at::Tensor> list;
            for (const OperatorArgument& part : parts_) list.push_back(part.tensor(frame));
            return list;
        }
        case Kind::kOptionalTensors:
            break;
    }
    c10::List<c10::optional<at::Tensor>> list;
    for (const OperatorArgument& part : parts_)
        list.push_back(part.kind_ == Kind::kNone ? c10::optional<at::Tensor>()
                                                 : c10::optional<at::Tensor>(part.tensor(frame)));
    return list;
}

}  // namespace ecopipe
