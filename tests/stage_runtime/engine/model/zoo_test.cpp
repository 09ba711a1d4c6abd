// The models of the zoo: the sizes that their papers and torchvision give, the names of its state
// dicts, and the same bytes over any cut. What they compute is compared with PyTorch by
// tests/integration/reference/reference.py.
#include <gtest/gtest.h>

#include "stage_runtime/engine/model/torch_compat.h"
#include "tests/stage_runtime/engine/run/model_steps.h"

namespace ecopipe::test {
namespace {

class Zoo : public testing::Test {
  protected:
    static void SetUpTestSuite() { configure_torch(1); }
    static void expect_no_cut_changes_a_bit(const ModelSpec& spec, const std::vector<int>& cuts) {
        const OptimizerSpec optimizer{"sgd", 0.9, 1e-3};
        Segments pairs;  // of layers, with one between them that is kept
        for (int layer = 1; layer + 1 < kLayersMax; layer += 3) pairs.push_back({layer, layer + 1});
        const TensorMap reference = train_cut(spec, -1, {}, optimizer);
        EXPECT_TRUE(same_bytes(reference, train_cut(spec, -1, kWhole, optimizer)));
        EXPECT_TRUE(same_bytes(reference, train_cut(spec, cuts.front(), pairs, optimizer)));
        for (const int cut : cuts) {
            EXPECT_TRUE(same_bytes(reference, train_cut(spec, cut, kWhole, optimizer)))
                << "recomputing, cut after " << cut;
            EXPECT_TRUE(same_bytes(reference, train_cut(spec, cut, {}, optimizer, true)))
                << "cut after " << cut << ", split backward";
        }
    }
};

TEST_F(Zoo, HasThePublishedSizes) {
    EXPECT_EQ(parameters(zoo("lenet5", {1, 28, 28})), 61706U);
    EXPECT_EQ(parameters(zoo("fashion_cnn", {1, 28, 28})), 1199882U);
    EXPECT_EQ(parameters(zoo("mobilenet_v2", {3, 32, 32})), 2236682U);
    EXPECT_EQ(parameters(zoo("mobilenet_v2", {3, 32, 32}, 1000)), 3504872U);
    EXPECT_EQ(parameters(zoo("efficientnet_b0", {3, 32, 32}, 1000)), 5288548U);
    EXPECT_EQ(parameters(zoo("shufflenet_v2_x1_0", {3, 32, 32}, 1000)), 2278604U);
    EXPECT_EQ(parameters(zoo("shufflenet_v1_g3", {3, 32, 32}, 1000)), 1865728U);
    // The encoder, and a linear layer of its own.
    EXPECT_EQ(parameters(zoo("mobilebert", {16})), 24581888U + 512 * 10 + 10);
    EXPECT_EQ(inspect_model(zoo("plain_cnn", {3, 16, 16}))->layers.size(), 11U);
}

TEST_F(Zoo, MobileNetHasTorchvisionsNames) {
    auto shapes = shapes_of(zoo("mobilenet_v2", {3, 32, 32}));
    EXPECT_EQ(shapes.size(), 314U);  // torchvision's state dict
    EXPECT_EQ(shapes["features.0.0.weight"], (Shape{32, 3, 3, 3}));
    EXPECT_EQ(shapes["features.1.conv.0.0.weight"], (Shape{32, 1, 3, 3}));
    EXPECT_EQ(shapes["features.1.conv.1.weight"], (Shape{16, 32, 1, 1}));
    EXPECT_EQ(shapes["features.2.conv.3.running_var"], (Shape{24}));
    EXPECT_EQ(shapes["features.17.conv.2.weight"], (Shape{320, 960, 1, 1}));
    EXPECT_EQ(shapes["features.18.1.num_batches_tracked"], Shape{});
    EXPECT_EQ(shapes["classifier.1.weight"], (Shape{10, 1280}));
}

TEST_F(Zoo, EfficientNetHasTorchvisionsNames) {
    auto shapes = shapes_of(zoo("efficientnet_b0", {3, 32, 32}));
    EXPECT_EQ(shapes.size(), 360U);  // torchvision's state dict
    EXPECT_EQ(shapes["features.0.0.weight"], (Shape{32, 3, 3, 3}));
    EXPECT_EQ(shapes["features.1.0.block.0.0.weight"], (Shape{32, 1, 3, 3}));
    EXPECT_EQ(shapes["features.1.0.block.1.fc1.bias"], (Shape{8}));
    EXPECT_EQ(shapes["features.3.1.block.1.0.weight"], (Shape{240, 1, 5, 5}));
    EXPECT_EQ(shapes["features.3.1.block.2.fc2.weight"], (Shape{240, 10, 1, 1}));
    EXPECT_EQ(shapes["features.7.0.block.3.1.running_var"], (Shape{320}));
    EXPECT_EQ(shapes["features.8.1.num_batches_tracked"], Shape{});
    EXPECT_EQ(shapes["classifier.1.weight"], (Shape{10, 1280}));
}

TEST_F(Zoo, EfficientNetHasItsStagesSizes) {
    const ModelSpec spec = zoo("efficientnet_b0", {3, 32, 32}, 1000);
    EXPECT_EQ(inspect_model(spec)->layers.size(), 21U);
    const std::vector<std::size_t> sizes{928,    1448,    16714,  46640, 242930,
                                         543148, 2026348, 717232, 412160};
    for (std::size_t i = 0; i < sizes.size(); ++i)
        EXPECT_EQ(parameters(spec, "features." + std::to_string(i)), sizes[i]) << i;
    EXPECT_EQ(parameters(spec, "classifier"), 1281000U);
}

TEST_F(Zoo, NoCutOfEfficientNetChangesABit) {
    expect_no_cut_changes_a_bit(zoo("efficientnet_b0", {3, 32, 32}), {3, 12});
}

TEST_F(Zoo, ShuffleNetV2HasTorchvisionsNames) {
    const ModelSpec spec = zoo("shufflenet_v2_x1_0", {3, 32, 32});
    EXPECT_EQ(inspect_model(spec)->layers.size(), 21U);
    auto shapes = shapes_of(spec);
    EXPECT_EQ(shapes.size(), 338U);  // torchvision's state dict
    EXPECT_EQ(shapes["conv1.0.weight"], (Shape{24, 3, 3, 3}));
    EXPECT_EQ(shapes["stage2.0.branch1.0.weight"], (Shape{24, 1, 3, 3}));
    EXPECT_EQ(shapes["stage2.0.branch1.3.running_mean"], (Shape{58}));
    EXPECT_EQ(shapes["stage2.0.branch2.0.weight"], (Shape{58, 24, 1, 1}));
    EXPECT_EQ(shapes["stage3.7.branch2.3.weight"], (Shape{116, 1, 3, 3}));
    EXPECT_EQ(shapes["stage4.3.branch2.6.num_batches_tracked"], Shape{});
    EXPECT_EQ(shapes["conv5.0.weight"], (Shape{1024, 464, 1, 1}));
    EXPECT_EQ(shapes["fc.weight"], (Shape{10, 1024}));
}

TEST_F(Zoo, NoCutOfShuffleNetV2ChangesABit) {
    expect_no_cut_changes_a_bit(zoo("shufflenet_v2_x1_0", {3, 32, 32}), {1, 10});
}

TEST_F(Zoo, ShuffleNetV1HasTheNamesOfTheModuleInPython) {
    const ModelSpec spec = zoo("shufflenet_v1_g3", {3, 32, 32});
    EXPECT_EQ(inspect_model(spec)->layers.size(), 20U);
    auto shapes = shapes_of(spec);
    EXPECT_EQ(shapes.size(), 296U);
    EXPECT_EQ(shapes["conv1.0.weight"], (Shape{24, 3, 3, 3}));
    EXPECT_EQ(shapes["stage2.0.conv1.weight"], (Shape{60, 24, 1, 1}));  // in one group
    EXPECT_EQ(shapes["stage2.0.conv3.weight"], (Shape{216, 20, 1, 1}));
    EXPECT_EQ(shapes["stage2.1.conv1.weight"], (Shape{60, 80, 1, 1}));
    EXPECT_EQ(shapes["stage3.7.conv2.weight"], (Shape{120, 1, 3, 3}));
    EXPECT_EQ(shapes["stage4.3.bn3.running_var"], (Shape{960}));
    EXPECT_EQ(shapes["fc.weight"], (Shape{10, 960}));
}

TEST_F(Zoo, NoCutOfShuffleNetV1ChangesABit) {
    expect_no_cut_changes_a_bit(zoo("shufflenet_v1_g3", {3, 32, 32}), {2, 13});
}

TEST_F(Zoo, MobileBertHasHuggingFacesNames) {
    const ModelSpec spec = zoo("mobilebert", {16});
    EXPECT_EQ(inspect_model(spec)->layers.size(), 26U);
    EXPECT_EQ(parameters(spec, "encoder.layer.0"), 842240U);
    EXPECT_EQ(parameters(spec, "encoder.layer.23"), 842240U);
    auto shapes = shapes_of(spec);
    EXPECT_EQ(shapes.size(), 1113U);  // 1111 of MobileBertModel without pooler, 2 of the head
    EXPECT_EQ(shapes["embeddings.word_embeddings.weight"], (Shape{30522, 128}));
    EXPECT_EQ(shapes["embeddings.position_embeddings.weight"], (Shape{512, 512}));
    EXPECT_EQ(shapes["embeddings.token_type_embeddings.weight"], (Shape{2, 512}));
    EXPECT_EQ(shapes["embeddings.embedding_transformation.weight"], (Shape{512, 384}));
    EXPECT_EQ(shapes["embeddings.LayerNorm.bias"], (Shape{512}));
    EXPECT_EQ(shapes["encoder.layer.7.attention.self.value.weight"], (Shape{128, 512}));
    EXPECT_EQ(shapes["encoder.layer.7.attention.output.LayerNorm.weight"], (Shape{128}));
    EXPECT_EQ(shapes["encoder.layer.7.intermediate.dense.weight"], (Shape{512, 128}));
    EXPECT_EQ(shapes["encoder.layer.7.output.bottleneck.dense.weight"], (Shape{512, 128}));
    EXPECT_EQ(shapes["encoder.layer.7.bottleneck.attention.dense.weight"], (Shape{128, 512}));
    EXPECT_EQ(shapes["encoder.layer.7.bottleneck.input.LayerNorm.bias"], (Shape{128}));
    EXPECT_EQ(shapes["encoder.layer.23.ffn.2.output.dense.weight"], (Shape{128, 512}));
    EXPECT_EQ(shapes["classifier.weight"], (Shape{10, 512}));
}

TEST_F(Zoo, NoCutOfMobileBertChangesABit) {
    expect_no_cut_changes_a_bit(zoo("mobilebert", {16}), {12});
}

TEST_F(Zoo, ModelsRefuseSamplesOfAnotherKind) {
    const auto refusal = [](const std::string& name, Shape input) {
        const auto info = inspect_model(zoo(name, std::move(input)));
        return info ? "" : info.error().message;
    };
    EXPECT_EQ(
        refusal("efficientnet_b0", {16}),
        "model efficientnet_b0: expected images of 3 channels, at least 1x1, found shape [16]");
    EXPECT_EQ(
        refusal("lenet5", {1, 12, 11}),
        "model lenet5: expected images of any channels, at least 12x12, found shape [1, 12, 11]");
    EXPECT_EQ(refusal("mobilebert", {3, 32, 32}),
              "model mobilebert: expected 1 to 512 token ids a sample, found shape [3, 32, 32]");
    EXPECT_EQ(refusal("mobilebert", {513}),
              "model mobilebert: expected 1 to 512 token ids a sample, found shape [513]");
    EXPECT_EQ(refusal("mobilebert", {512}), "");
}

TEST_F(Zoo, ATokenBeyondTheVocabularyIsRefused) {
    const ModelSpec spec = zoo("mobilebert", {4});
    Batch batch = random_batch(spec, 2, 1);
    EXPECT_TRUE(try_model(spec, {}, batch));
    batch.inputs.as<std::int64_t>()[3] = 30522;
    const auto tried = try_model(spec, {}, batch);
    ASSERT_FALSE(tried);
    EXPECT_NE(tried.error().message.find("layer 0 (embeddings)"), std::string::npos)
        << tried.error().message;
    EXPECT_NE(tried.error().message.find("index out of range"), std::string::npos);
}

}  // namespace
}  // namespace ecopipe::test
