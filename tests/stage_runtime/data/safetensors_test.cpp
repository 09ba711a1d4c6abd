#include "stage_runtime/data/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "core/files.h"
#include "core/narrow_floats.h"

namespace ecopipe {
namespace {

std::string file_of(const std::string& header, const std::string& data) {
    const std::uint64_t n = header.size();
    std::string bytes(reinterpret_cast<const char*>(&n), 8);
    return bytes + header + data;
}

std::string problem(const std::string& bytes) {
    const auto parsed = parse_safetensors(bytes, "f");
    return parsed ? "" : parsed.error().message;
}

TEST(Safetensors, RoundTripKeepsNamesOrderAndBytes) {
    const std::string path =
        std::filesystem::temp_directory_path() / ("st-" + std::to_string(::getpid()));
    TensorMap tensors;
    tensors.push_back({"z.weight", HostTensor::allocate(DType::kF32, {2, 3})});
    tensors.push_back({"a.count", HostTensor::allocate(DType::kI64, {})});
    std::memset(tensors[0].tensor.data(), 7, 24);
    tensors[1].tensor.as<std::int64_t>()[0] = 42;
    ASSERT_TRUE(write_safetensors(path, tensors));
    const auto back = read_safetensors(path);
    ASSERT_TRUE(back) << back.error().message;
    ASSERT_EQ(back->size(), 2U);
    EXPECT_EQ((*back)[0].name, "z.weight");
    EXPECT_EQ(std::memcmp((*back)[0].tensor.data(), tensors[0].tensor.data(), 24), 0);
    EXPECT_EQ((*back)[1].tensor.as<std::int64_t>()[0], 42);
    const std::string whole = *read_file(path, 1 << 20);
    for (std::size_t n = 0; n < whole.size(); ++n) EXPECT_NE(problem(whole.substr(0, n)), "") << n;
    std::filesystem::remove(path);
}

TEST(Safetensors, RefusesWhatDoesNotAddUp) {
    const std::string ok = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
    EXPECT_EQ(problem(file_of(ok, "1234")), "");
    EXPECT_NE(problem(file_of(ok, "12345")), "");
    EXPECT_NE(problem(file_of(ok, "123")), "");
    for (
        const char* header :
        {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})",
         R"({"a":{"dtype":"F9","shape":[1],"data_offsets":[0,4]}})",
         R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})",
         R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})",
         R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
         R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
         R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}})", R"([])",
         R"({"a":1})"})
        EXPECT_NE(problem(file_of(header, "1234")), "") << header;
    EXPECT_NE(problem(std::string(8, '\xFF')), "");
}

HostTensor numbers(DType dtype, std::vector<double> values) {
    HostTensor out = HostTensor::allocate(dtype, {static_cast<std::int64_t>(values.size())});
    for (std::size_t i = 0; i < values.size(); ++i) {
        const auto value = static_cast<float>(values[i]);
        if (dtype == DType::kF64) out.as<double>()[i] = values[i];
        if (dtype == DType::kF32) out.as<float>()[i] = value;
        if (dtype == DType::kF16) out.as<std::uint16_t>()[i] = to_half(value);
        if (dtype == DType::kBF16) out.as<std::uint16_t>()[i] = to_bfloat(value);
        if (dtype == DType::kI64) out.as<std::int64_t>()[i] = static_cast<std::int64_t>(values[i]);
    }
    return out;
}

// What adopting `given` says for a model of the tensors `own`; "" when it is well.
std::string adoption(const TensorMap& given, TensorMap& own, const ModelInfo& info = {}) {
    const auto result = adopt_weights(given, "f", {}, info, own);
    return result ? "" : result.error().message;
}

TEST(Safetensors, AdoptingNamesWhatDoesNotFit) {
    TensorMap model{{"w", HostTensor::allocate(DType::kF32, {2})}};
    const auto two = [](DType dtype) { return HostTensor::allocate(dtype, {2}); };
    EXPECT_EQ(adoption({{"w", two(DType::kF32)}}, model), "");
    EXPECT_EQ(adoption({}, model), "f: tensor w is missing");
    EXPECT_EQ(adoption({{"w", HostTensor::allocate(DType::kF32, {3})}}, model),
              "f: tensor w: expected F32 [2], found F32 [3]");
    EXPECT_EQ(adoption({{"w", two(DType::kI64)}}, model),
              "f: tensor w: expected F32 [2], found I64 [2]");
    EXPECT_EQ(adoption({{"w", two(DType::kF32)}, {"x", two(DType::kF32)}}, model),
              "f: expected the model's 1 tensors, found 2");
}

TEST(Safetensors, AdoptingConvertsOtherPrecisions) {
    const std::vector<double> values{0, -1.5, 0.333251953125, 65504, 0x1p-24};
    for (const DType dtype : {DType::kF16, DType::kF64}) {
        TensorMap model{{"w", HostTensor::allocate(DType::kF32, {5})}};
        ASSERT_EQ(adoption({{"w", numbers(dtype, values)}}, model), "");
        ASSERT_EQ(model[0].tensor.dtype(), DType::kF32);
        for (std::size_t i = 0; i < values.size(); ++i)
            EXPECT_EQ(model[0].tensor.as<float>()[i], static_cast<float>(values[i]));
    }
    TensorMap model{{"w", HostTensor::allocate(DType::kF32, {2})}};
    ASSERT_EQ(adoption({{"w", numbers(DType::kBF16, {1, -3.140625})}}, model), "");
    EXPECT_EQ(model[0].tensor.as<float>()[1], -3.140625F);
    EXPECT_EQ(adoption({{"w", numbers(DType::kF64, {1, 1e39})}}, model),
              "f: tensor w: expected numbers that float32 can hold, found larger ones");
    // A counter stays a counter.
    TensorMap counter{{"n", numbers(DType::kI64, {3})}};
    EXPECT_EQ(adoption({{"n", numbers(DType::kF32, {4})}}, counter),
              "f: tensor n: expected I64 [1], found F32 [1]");
}

TEST(Safetensors, ATensorWithTwoNamesStandsUnderEither) {
    ModelInfo info;
    info.tensors.push_back({"embed", DType::kF32, {2}, 0, true, false, ""});
    info.tensors.push_back({"head", DType::kF32, {2}, 1, true, false, "embed"});
    const auto fresh = [] {
        return TensorMap{{"embed", numbers(DType::kF32, {0, 0})},
                         {"head", numbers(DType::kF32, {0, 0})}};
    };
    const HostTensor values = numbers(DType::kF32, {1, 2});
    for (const TensorMap& given : {TensorMap{{"embed", values}}, TensorMap{{"head", values}},
                                   TensorMap{{"embed", values}, {"head", values.clone()}}}) {
        TensorMap model = fresh();
        ASSERT_EQ(adoption(given, model, info), "");
        for (const NamedTensor& tensor : model) EXPECT_EQ(tensor.tensor.as<float>()[1], 2);
    }
    TensorMap model = fresh();
    EXPECT_EQ(adoption({{"embed", values}, {"head", numbers(DType::kF32, {1, 3})}}, model, info),
              "f: tensor head: expected the values of embed, which is the same tensor of the "
              "model, found others");
}

}  // namespace
}  // namespace ecopipe
