#include <cmath>

#include "stage_runtime/engine/model/zoo/modules.h"

// MobileBERT (Sun et al., ACL 2020) as google/mobilebert-uncased configures it, and a head: one
// linear layer on what the last encoder layer makes of the first token. This is Hugging Face's
// MobileBertForSequenceClassification with classifier_activation off, that is without the pooler,
// and so are the names, without their "mobilebert." in front, and the initial values (N(0, 0.02),
// biases 0). All tokens are attended to, padding (id 0) too, and all are of type 0.
namespace ecopipe::zoo {
namespace {

constexpr std::int64_t kVocabulary = 30522;
constexpr std::int64_t kPositions = 512;
constexpr std::int64_t kTokenTypes = 2;
constexpr std::int64_t kPaddingToken = 0;
constexpr std::int64_t kEmbedding = 128;
constexpr std::int64_t kHidden = 512;  // what passes between layers
constexpr std::int64_t kInner = 128;   // what a layer computes with, behind its bottleneck
constexpr std::int64_t kFeedForward = 512;
constexpr std::int64_t kHeads = 4;
constexpr int kEncoderLayers = 24;
constexpr int kFeedForwards = 4;  // of a layer: ffn.0 to ffn.2, and the last without a prefix
constexpr double kAttentionDropout = 0.1;
constexpr double kDeviation = 0.02;

Function dense(Layer& layer, const std::string& prefix, std::int64_t in, std::int64_t out) {
    return linear(layer, prefix, in, out, {.normal_std = kDeviation});
}

// A linear module and a NoNorm behind it; what is added in between may be undefined.
struct DenseNorm {
    DenseNorm(Layer& layer, const std::string& prefix, std::int64_t in, std::int64_t out)
        : weigh(dense(layer, prefix + ".dense", in, out)),
          norm(no_norm(layer, prefix + ".LayerNorm", out)) {}
    at::Tensor operator()(const at::Tensor& x, const at::Tensor& added = {}) const {
        const at::Tensor weighed = weigh(x, false);
        return norm(added.defined() ? weighed + added : weighed, false);
    }
    Function weigh;
    Function norm;
};

struct FeedForward {
    FeedForward(Layer& layer, const std::string& prefix)
        : widen(dense(layer, prefix + "intermediate.dense", kInner, kFeedForward)),
          narrow(layer, prefix + "output", kFeedForward, kInner) {}
    at::Tensor operator()(const at::Tensor& x) const {
        return narrow(at::relu(widen(x, false)), x);
    }
    Function widen;
    DenseNorm narrow;
};

// Scaled dot products of kHeads heads over [n, sequence, kInner].
class SelfAttention {
  public:
    SelfAttention(Layer& layer, const std::string& prefix)
        : query_(dense(layer, prefix + "self.query", kInner, kInner)),
          key_(dense(layer, prefix + "self.key", kInner, kInner)),
          value_(dense(layer, prefix + "self.value", kHidden, kInner)),
          drop_(dropout(layer, kAttentionDropout)),
          output_(layer, prefix + "output", kInner, kInner) {}
    // Queries and keys of `shared`, values of `x`; `residual` is added to the result.
    at::Tensor operator()(const at::Tensor& shared, const at::Tensor& x, const at::Tensor& residual,
                          bool training) const {
        const auto heads = [](const at::Tensor& all) {
            return all.view({all.size(0), all.size(1), kHeads, kInner / kHeads}).transpose(1, 2);
        };
        const double scale = 1.0 / std::sqrt(static_cast<double>(kInner / kHeads));
        const at::Tensor query = heads(query_(shared, training));
        const at::Tensor key = heads(key_(shared, training));
        const at::Tensor value = heads(value_(x, training));
        const at::Tensor scores = at::matmul(query, key.transpose(2, 3)) * scale;
        const at::Tensor weights = drop_(scores.softmax(-1), training);
        const at::Tensor mixed = at::matmul(weights, value).transpose(1, 2);
        return output_(mixed.reshape({x.size(0), x.size(1), kInner}), residual);
    }

  private:
    Function query_;
    Function key_;
    Function value_;
    Function drop_;
    DenseNorm output_;
};

// Each token's vector beside those of the next and of the one before, made as wide as a layer is.
void add_embeddings(Layers& layers) {
    Composed& layer = add_layer(layers, "embeddings", "trigram_embedding");
    const auto table = [&](const std::string& name, const EmbeddingOptions& options) {
        return embedding(layer, "embeddings." + name, options);
    };
    const Function words = table("word_embeddings", {.rows = kVocabulary,
                                                     .columns = kEmbedding,
                                                     .padding = kPaddingToken,
                                                     .deviation = kDeviation});
    const Function positions = table(
        "position_embeddings", {.rows = kPositions, .columns = kHidden, .deviation = kDeviation});
    const Function types =
        table("token_type_embeddings",
              {.rows = kTokenTypes, .columns = kHidden, .deviation = kDeviation});
    const Function widen =
        dense(layer, "embeddings.embedding_transformation", 3 * kEmbedding, kHidden);
    const Function norm = no_norm(layer, "embeddings.LayerNorm", kHidden);
    layer.functions = {[=](const at::Tensor& tokens, bool training) {
        const std::int64_t length = tokens.size(1);
        const at::Tensor vectors = words(tokens, training);
        const at::Tensor around = at::constant_pad_nd(vectors, {0, 0, 1, 1});
        const at::Tensor trigrams =
            at::cat({around.narrow(1, 2, length), vectors, around.narrow(1, 0, length)}, 2);
        const at::Tensor places = at::arange(length, tokens.options()).unsqueeze(0);
        return norm(widen(trigrams, training) + positions(places, training) +
                        types(at::zeros_like(tokens), training),
                    training);
    }};
}

void add_encoder_layer(Layers& layers, const std::string& name) {
    Composed& layer = add_layer(layers, name, "encoder_layer");
    const std::string prefix = name + ".";
    const SelfAttention attention(layer, prefix + "attention.");
    const FeedForward last(layer, prefix);
    const DenseNorm leave(layer, prefix + "output.bottleneck", kInner, kHidden);
    const DenseNorm enter(layer, prefix + "bottleneck.input", kHidden, kInner);
    const DenseNorm enter_attention(layer, prefix + "bottleneck.attention", kHidden, kInner);
    std::vector<FeedForward> feed_forwards;
    for (int i = 0; i + 1 < kFeedForwards; ++i)
        feed_forwards.emplace_back(layer, prefix + "ffn." + std::to_string(i) + ".");
    feed_forwards.push_back(last);
    layer.functions = {[=](const at::Tensor& x, bool training) {
        at::Tensor inside = attention(enter_attention(x), x, enter(x), training);
        for (const FeedForward& feed_forward : feed_forwards) inside = feed_forward(inside);
        return leave(inside, x);
    }};
}

}  // namespace

Layers mobilebert(const std::vector<std::int64_t>&, int num_classes) {
    Layers layers;
    add_embeddings(layers);
    for (int i = 0; i < kEncoderLayers; ++i)
        add_encoder_layer(layers, "encoder.layer." + std::to_string(i));
    Composed& head = add_layer(layers, "classifier", "linear");
    const Function classify = dense(head, head.name, kHidden, num_classes);
    head.functions = {
        [=](const at::Tensor& x, bool training) { return classify(x.select(1, 0), training); }};
    return layers;
}

}  // namespace ecopipe::zoo
