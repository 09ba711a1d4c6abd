#include "stage_runtime/data/tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "core/check.h"
#include "core/log.h"
#include "stage_runtime/data/safetensors.h"

namespace ecopipe {
namespace {

constexpr std::int64_t kClassesMax = 1000000;

// One file's tensors, as they are handed out but for pixels, which stay bytes.
struct Samples {
    std::string file;
    TensorMap inputs;  // one without a name, or several with theirs
    HostTensor targets;
    std::int64_t highest_class = -1;
};

Shape without_first(const Shape& shape) { return {shape.begin() + 1, shape.end()}; }

class TensorDataset : public Dataset {
  public:
    TensorDataset(Samples samples, int num_classes)
        : samples_(std::move(samples)), num_classes_(num_classes) {}
    std::int64_t size() const override { return samples_.targets.shape()[0]; }
    Shape sample_shape() const override {
        return without_first(samples_.inputs.front().tensor.shape());
    }
    std::vector<std::string> input_names() const override {
        std::vector<std::string> names;
        for (const NamedTensor& input : samples_.inputs)
            if (!input.name.empty()) names.push_back(input.name);
        return names;
    }
    Shape target_shape() const override { return without_first(samples_.targets.shape()); }
    int num_classes() const override { return num_classes_; }
    std::int64_t label(std::int64_t index) const override {
        if (num_classes_ == 0 || samples_.targets.shape().size() != 1) return -1;
        const auto target = samples_.targets.as<std::int64_t>()[static_cast<std::size_t>(index)];
        return target >= 0 && target < num_classes_ ? target : -1;  // else ignored
    }
    Result<Batch> batch(std::span<const std::int64_t> indices) const override {
        Batch batch{rows(samples_.inputs.front().tensor, indices),
                    gather(samples_.targets, indices)};
        for (std::size_t i = 1; i < samples_.inputs.size(); ++i)
            batch.more_inputs.push_back(rows(samples_.inputs[i].tensor, indices));
        return batch;
    }

  private:
    // Bytes as numbers from 0 to 1.
    static HostTensor rows(const HostTensor& from_all, std::span<const std::int64_t> indices) {
        HostTensor found = gather(from_all, indices);
        if (found.dtype() != DType::kU8) return found;
        HostTensor scaled = HostTensor::allocate(DType::kF32, found.shape());
        const auto from = found.as<std::uint8_t>();
        const auto to = scaled.as<float>();
        for (std::size_t i = 0; i < from.size(); ++i) to[i] = static_cast<float>(from[i]) / 255.0F;
        return scaled;
    }
    static HostTensor gather(const HostTensor& from, std::span<const std::int64_t> indices) {
        Shape shape = from.shape();
        const std::size_t row = from.bytes() / static_cast<std::size_t>(shape[0]);
        shape[0] = static_cast<std::int64_t>(indices.size());
        HostTensor out = HostTensor::allocate(from.dtype(), std::move(shape));
        std::byte* to = out.data();
        for (const std::int64_t index : indices) {
            ECOPIPE_CHECK(index >= 0 && index < from.shape()[0]);
            std::memcpy(to, from.data() + static_cast<std::size_t>(index) * row, row);
            to += row;
        }
        return out;
    }

    Samples samples_;
    int num_classes_;
};

template <class T>
HostTensor widened(const HostTensor& from) {
    HostTensor out = HostTensor::allocate(DType::kI64, from.shape());
    std::copy(from.as<T>().begin(), from.as<T>().end(), out.as<std::int64_t>().begin());
    return out;
}

Result<void> check_finite(const HostTensor& tensor, const std::string& place) {
    if (tensor.dtype() != DType::kF32) return {};
    const auto values = tensor.as<float>();
    const auto bad =
        std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
    if (bad == values.end()) return {};
    return fail(ExitCode::kBadFile,
                fmt::format("{}: expected finite numbers, found {} at element {}", place, *bad,
                            bad - values.begin()));
}

// Classes as int64, and the highest of them.
Result<void> take_classes(Samples& samples, const std::string& place,
                          std::optional<std::int64_t> ignored) {
    if (samples.targets.dtype() == DType::kI32)
        samples.targets = widened<std::int32_t>(samples.targets);
    if (samples.targets.dtype() == DType::kU8)
        samples.targets = widened<std::uint8_t>(samples.targets);
    for (const std::int64_t value : std::as_const(samples.targets).as<std::int64_t>()) {
        if (value == ignored) continue;
        if (value < 0 || value >= kClassesMax)
            return fail(
                ExitCode::kBadFile,
                fmt::format("{}: integer targets are classes: expected 0 to {}{}, found {} "
                            "(write numbers as float32)",
                            place, kClassesMax - 1,
                            ignored ? fmt::format(", or {} to ignore one", *ignored) : "", value));
        samples.highest_class = std::max(samples.highest_class, value);
    }
    return {};
}

Result<Samples> read_samples(const std::string& file, std::optional<std::int64_t> ignored) {
    ECOPIPE_ASSIGN_OR_RETURN(TensorMap tensors, read_safetensors(file));
    Samples samples;
    samples.file = file;
    constexpr std::string_view kNamed = "inputs.";
    for (NamedTensor& entry : tensors) {
        if (entry.name == "targets") {
            samples.targets = std::move(entry.tensor);
        } else if (entry.name == "inputs" || entry.name.starts_with(kNamed)) {
            entry.name.erase(0, kNamed.size());
            samples.inputs.push_back(std::move(entry));
        } else {
            return fail(ExitCode::kBadFile,
                        fmt::format("{}: expected the tensors inputs (or inputs.NAME for each) and "
                                    "targets, found {}",
                                    file, printable(entry.name)));
        }
    }
    const auto refuse = [&](const std::string& name, const std::string& problem) {
        return fail(ExitCode::kBadFile, fmt::format("{}: {}: {}", file, name, problem));
    };
    if (samples.inputs.empty()) return refuse("inputs", "is missing");
    if (!samples.targets.defined()) return refuse("targets", "is missing");
    for (NamedTensor& input : samples.inputs) {
        const std::string name = input.name.empty() ? "inputs" : "inputs." + input.name;
        if (input.name.empty() && samples.inputs.size() > 1)
            return refuse(name, "stands beside inputs.NAME; name it too");
        const DType in = input.tensor.dtype();
        if (in != DType::kF32 && in != DType::kI64 && in != DType::kI32 && in != DType::kU8)
            return refuse(name,
                          fmt::format("expected F32, I64, I32 or U8, found {}", dtype_name(in)));
        if (in == DType::kI32) input.tensor = widened<std::int32_t>(input.tensor);
    }
    const DType out = samples.targets.dtype();
    if (out != DType::kF32 && out != DType::kI64 && out != DType::kI32 && out != DType::kU8)
        return refuse("targets",
                      fmt::format("expected F32, I64, I32 or U8, found {}", dtype_name(out)));
    const std::int64_t count = samples.targets.shape().empty() ? 0 : samples.targets.shape()[0];
    for (const NamedTensor& input : samples.inputs) {
        const std::string name = input.name.empty() ? "inputs" : "inputs." + input.name;
        const Shape& shape = input.tensor.shape();
        if (shape.size() < 2 || input.tensor.elements() == 0)
            return refuse(name, fmt::format("expected [samples, ...], none of them 0, found {}",
                                            shape_text(shape)));
        if (count != shape[0] || samples.targets.elements() == 0)
            return refuse("targets",
                          fmt::format("expected one for each of the {} {}, found shape {}",
                                      shape[0], name, shape_text(samples.targets.shape())));
        ECOPIPE_RETURN_IF_ERROR(check_finite(input.tensor, file + ": " + name));
    }
    ECOPIPE_RETURN_IF_ERROR(check_finite(samples.targets, file + ": targets"));
    if (out != DType::kF32)
        ECOPIPE_RETURN_IF_ERROR(take_classes(samples, file + ": targets", ignored));
    return samples;
}

Result<void> check_alike(const Samples& train, const Samples& other) {
    const auto differs = [&](const std::string& name, const HostTensor& a, const HostTensor& b) {
        return a.dtype() != b.dtype() || without_first(a.shape()) != without_first(b.shape())
                   ? Result<void>(fail(
                         ExitCode::kBadFile,
                         fmt::format("{}: {}: expected {} {} a sample as in {}, found {} {}",
                                     other.file, name, dtype_name(a.dtype()),
                                     shape_text(without_first(a.shape())), train.file,
                                     dtype_name(b.dtype()), shape_text(without_first(b.shape())))))
                   : Result<void>();
    };
    for (std::size_t i = 0; i < train.inputs.size(); ++i) {
        const std::string& name = train.inputs[i].name;
        if (i >= other.inputs.size() || other.inputs[i].name != name ||
            other.inputs.size() != train.inputs.size())
            return fail(
                ExitCode::kBadFile,
                fmt::format("{}: expected the inputs of {}, in its order", other.file, train.file));
        ECOPIPE_RETURN_IF_ERROR(differs(name.empty() ? "inputs" : "inputs." + name,
                                        train.inputs[i].tensor, other.inputs[i].tensor));
    }
    ECOPIPE_RETURN_IF_ERROR(differs("targets", train.targets, other.targets));
    if (other.highest_class > train.highest_class)
        return fail(ExitCode::kBadFile,
                    fmt::format("{}: targets: expected classes up to {} as in {}, found {}",
                                other.file, train.highest_class, train.file, other.highest_class));
    return {};
}

}  // namespace

Result<DataSplits> open_tensors(const std::string& directory, std::optional<std::int64_t> ignored) {
    const auto file = [&](const char* split) {
        return (std::filesystem::path(directory) / (std::string(split) + ".safetensors")).string();
    };
    ECOPIPE_ASSIGN_OR_RETURN(Samples train, read_samples(file("train"), ignored));
    const int classes = static_cast<int>(train.highest_class + 1);
    DataSplits splits;
    for (const char* name : {"val", "test"}) {
        if (!std::filesystem::exists(file(name))) continue;
        ECOPIPE_ASSIGN_OR_RETURN(Samples samples, read_samples(file(name), ignored));
        ECOPIPE_RETURN_IF_ERROR(check_alike(train, samples));
        auto data = std::make_unique<TensorDataset>(std::move(samples), classes);
        (*name == 'v' ? splits.validation : splits.test) = std::move(data);
    }
    splits.train = std::make_unique<TensorDataset>(std::move(train), classes);
    return splits;
}

}  // namespace ecopipe
