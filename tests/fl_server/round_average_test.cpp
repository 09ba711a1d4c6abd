#include "fl_server/round_average.h"

#include <gtest/gtest.h>

#include "core/files.h"
#include "fl_server/admission.h"
#include "fl_server/server_config.h"

namespace ecopipe {
namespace {

TensorMap model(float weight, float mean, std::int64_t count) {
    TensorMap tensors{{"w", HostTensor::allocate(DType::kF32, {2})},
                      {"running_mean", HostTensor::allocate(DType::kF32, {1})},
                      {"num_batches_tracked", HostTensor::allocate(DType::kI64, {})}};
    tensors[0].tensor.as<float>()[0] = weight;
    tensors[0].tensor.as<float>()[1] = -weight;
    tensors[1].tensor.as<float>()[0] = mean;
    tensors[2].tensor.as<std::int64_t>()[0] = count;
    return tensors;
}

TEST(FedAvg, WeighsBySamplesAveragesFloatBuffersAndTakesTheLargestCount) {
    const auto strategy = make_fed_avg();
    const TensorMap next = strategy->aggregate(
        model(0, 0, 0), {{"a", 0, 300, model(1, 4, 7)}, {"b", 0, 100, model(5, 8, 3)}});
    EXPECT_EQ(next[0].tensor.as<float>()[0], 2.0F);
    EXPECT_EQ(next[0].tensor.as<float>()[1], -2.0F);
    EXPECT_EQ(next[1].tensor.as<float>()[0], 5.0F);
    EXPECT_EQ(next[2].tensor.as<std::int64_t>()[0], 7);
}

TEST(FedAvg, ArrivalOrderIsNoInput) {
    const auto strategy = make_fed_avg();
    std::vector<AdmittedUpdate> updates{{"a", 0, 3, model(0.1F, 1, 1)},
                                        {"b", 0, 7, model(0.7F, 2, 1)},
                                        {"c", 0, 11, model(1e-3F, 3, 1)}};
    const TensorMap first = strategy->aggregate(model(0, 0, 0), updates);
    std::swap(updates[0], updates[2]);
    const TensorMap second = strategy->aggregate(model(0, 0, 0), updates);
    EXPECT_EQ(flatten(first), flatten(second));
}

TEST(Strategies, AnUnknownNameIsRefused) {
    EXPECT_EQ(make_round_average("best").error().code, ExitCode::kUsage);
}

class Admission : public testing::Test {
  protected:
    Admission() {
        slice_.base_version = 4;
        slice_.samples = 10;
        slice_.last_layer = 9;
        slice_.bytes = bytes_.size();
        slice_.sha256 = sha256_hex(bytes_);
    }
    const TensorMap model_ = model(1, 2, 3);
    std::string bytes_ = flatten(model_);
    const std::vector<TensorEntry> entries_ = entries_of(model_);
    const AdmissionRule rule_{4, bytes_.size(), 9, 1000};
    UpdateSlice slice_;
};

TEST_F(Admission, TakesAGoodUpdate) {
    EXPECT_EQ(check_announcement(slice_, rule_), "");
    EXPECT_EQ(check_contents(slice_, entries_, bytes_), "");
}

TEST_F(Admission, NamesEachReason) {
    const auto announced = [&](auto change) {
        UpdateSlice slice = slice_;
        change(slice);
        return check_announcement(slice, rule_);
    };
    EXPECT_EQ(announced([](UpdateSlice& s) { s.base_version = 3; }),
              "it starts from version 3, expected 4");
    EXPECT_NE(announced([](UpdateSlice& s) { s.slices = 2; }), "");
    EXPECT_NE(announced([](UpdateSlice& s) { s.last_layer = 8; }), "");
    EXPECT_NE(announced([](UpdateSlice& s) { s.bytes = 5; }), "");
    EXPECT_NE(announced([](UpdateSlice& s) { s.samples = 0; }), "");
    EXPECT_NE(announced([](UpdateSlice& s) { s.samples = 1001; }), "");
    EXPECT_NE(check_contents(slice_, entries_, bytes_.substr(1)), "");
    std::string other = bytes_;
    other[0] ^= 1;
    EXPECT_EQ(check_contents(slice_, entries_, other), "its bytes do not have the hash announced");
    TensorMap poisoned = model(1, std::numeric_limits<float>::infinity(), 3);
    const std::string bytes = flatten(poisoned);
    slice_.sha256 = sha256_hex(bytes);
    EXPECT_EQ(check_contents(slice_, entries_, bytes),
              "tensor running_mean has a value that is not finite");
}

TEST(ServerConfig, ReadsClientSettingsStrictly) {
    const auto config =
        parse_server_config("client: {epochs: 2, lr: 0.05, optimizer: adam}\n", "server.yaml");
    ASSERT_TRUE(config) << config.error().message;
    ASSERT_EQ(config->client.size(), 3U);
    EXPECT_EQ(config->client[0].key, "epochs");
    EXPECT_EQ(config->client[0].value, "2");
    EXPECT_EQ(parse_server_config("client: {epochs: 0}\n", "s").error().message,
              "s: client.epochs: expected an integer from 1 to 1000000, found 0");
    EXPECT_FALSE(parse_server_config("client: {speed: 1}\n", "s"));
    EXPECT_FALSE(parse_server_config("server: {}\n", "s"));
}

}  // namespace
}  // namespace ecopipe
