#include "stage_runtime/engine/run/test_batch.h"

#include <gtest/gtest.h>

#include "stage_runtime/data/open_data.h"

namespace ecopipe {
namespace {

int batch_of(const std::string& model, const std::string& data) {
    ModelSpec spec = find_model(model).value();
    DataOptions options;
    options.channels = required_channels(spec);
    const auto test = open_test_data(data, options);
    EXPECT_TRUE(test) << test.error().message;
    spec.input_shape = (*test)->sample_shape();
    spec.num_classes = (*test)->num_classes();
    const auto batch = test_batch(spec, **test);
    EXPECT_TRUE(batch) << batch.error().message;
    return batch.value_or(0);
}

TEST(TestBatch, IsWhatFitsTheTensorsOfAnyLayer) {
    EXPECT_EQ(batch_of("lenet5", "synthetic:1x28x28:10:40"), kTestBatchMax);
    const int wide = batch_of("mobilenet_v2", "synthetic:3x64x64:10:40");
    EXPECT_GE(wide, 1);
    EXPECT_LT(wide, kTestBatchMax);
    EXPECT_EQ(batch_of("lenet5", "synthetic:1x300x300:10:2"), 1);
}

TEST(TestBatch, DoesNotDependOnHowManySamplesThereAre) {
    EXPECT_EQ(batch_of("fashion_cnn", "synthetic:1x28x28:10:3"),
              batch_of("fashion_cnn", "synthetic:1x28x28:10:4000"));
}

}  // namespace
}  // namespace ecopipe
