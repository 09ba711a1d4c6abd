#include "stage_runtime/model/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "core/files.h"

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

TEST(Safetensors, AdoptingNamesWhatDoesNotFit) {
    TensorMap model{{"w", HostTensor::allocate(DType::kF32, {2})}};
    EXPECT_TRUE(adopt_weights({{"w", HostTensor::allocate(DType::kF32, {2})}}, "f", {}, model));
    EXPECT_EQ(adopt_weights({}, "f", {}, model).error().message, "f: tensor w is missing");
    EXPECT_FALSE(adopt_weights({{"w", HostTensor::allocate(DType::kF32, {3})}}, "f", {}, model));
    EXPECT_FALSE(adopt_weights({{"w", HostTensor::allocate(DType::kF32, {2})},
                                {"x", HostTensor::allocate(DType::kF32, {2})}},
                               "f", {}, model));
}

}  // namespace
}  // namespace ecopipe
