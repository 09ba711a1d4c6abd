// Models that are graphs, whole and cut: the same bytes.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "core/random.h"
#include "domain/plan_index.h"
#include "stage_runtime/engine/model/torch_compat.h"
#include "stage_runtime/engine/run/executor.h"
#include "stage_runtime/engine/run/profiler.h"
#include "tests/stage_runtime/engine/run/model_steps.h"
#include "tests/support/small_graph.h"

namespace ecopipe {
namespace {

ModelSpec small() {
    ModelSpec spec;
    spec.graph = test::small_graph();
    spec.sha256 = "0";
    return spec;
}

HostTensor drawn(Shape shape, std::uint64_t seed) {
    HostTensor tensor = HostTensor::allocate(DType::kF32, std::move(shape));
    Rng rng(seed);
    for (float& value : tensor.as<float>()) value = static_cast<float>(rng.uniform() - 0.5);
    return tensor;
}

// As a pipeline: every stage an executor of its own, values and gradients on the plan's ways.
class Pipeline {
  public:
    Pipeline(const ModelSpec& spec, const std::vector<int>& first_layers,
             const Segments& recomputed) {
        const ModelInfo info = *inspect_model(spec);
        flow_ = info.flow;
        for (std::size_t s = 0; s < first_layers.size(); ++s) {
            StagePlan stage;
            stage.device = "d" + std::to_string(s);
            stage.first_layer = first_layers[s];
            stage.last_layer =
                (s + 1 < first_layers.size() ? first_layers[s + 1] : flow_.layers()) - 1;
            plan_.stages.push_back(stage);
        }
        index_ = PlanIndex(plan_, flow_);
        for (std::uint32_t s = 0; s < plan_.stages.size(); ++s) {
            ExecutorOptions options;
            options.range = index_.layers_of({s});
            options.recomputed = within(recomputed, options.range);
            options.optimizer.momentum = 0.9;
            options.seed = 7;
            auto executor = Executor::create(spec, options);
            EXPECT_TRUE(executor) << executor.error().message;
            stages_.push_back(std::move(*executor));
            std::vector<int> values;
            for (const ValueWay& way : index_.ways_of({s}).returning) values.push_back(way.value);
            if (!values.empty()) stages_.back()->set_returns(values);
        }
        for (const TensorInfo& tensor : info.tensors) {
            HostTensor value = drawn(tensor.shape, keyed_seed(3, tensor.name));
            if (tensor.name.ends_with("running_var"))
                for (float& variance : value.as<float>()) variance += 1;
            for (auto& stage : stages_) static_cast<void>(stage->load_state(tensor.name, value));
        }
    }

    void step(std::uint64_t number, const std::vector<std::int64_t>& micro_batches,
              bool split_backward) {
        for (auto& stage : stages_) stage->begin_step(number, 8);
        for (std::uint32_t m = 0; m < micro_batches.size(); ++m)
            forward(number, m, micro_batches[m]);
        for (std::uint32_t m = 0; m < micro_batches.size(); ++m) backward(m, split_backward);
        for (const TieWay& tie : index_.ties())
            stages_[tie.home.index()]->add_tied_gradient(
                tie.use.name, tie.use.user,
                stages_[tie.user.index()]->tied_gradient(tie.use.name, tie.use.user));
        for (auto& stage : stages_) static_cast<void>(stage->finish_step());
        for (auto& stage : stages_) stage->commit(0.05, 1);
        for (const TieWay& tie : index_.ties())
            EXPECT_TRUE(stages_[tie.user.index()]->load_state(
                tie.use.name, stages_[tie.home.index()]->tied_weight(tie.use.name)));
    }

    [[nodiscard]] std::map<std::string, std::string> state() const {
        std::map<std::string, std::string> all;
        for (const auto& stage : stages_)
            for (const NamedTensor& entry : stage->state(true))
                all[entry.name].assign(reinterpret_cast<const char*>(entry.tensor.data()),
                                       entry.tensor.bytes());
        return all;
    }

  private:
    void forward(std::uint64_t number, std::uint32_t m, std::int64_t samples) {
        HostTensor labels = HostTensor::allocate(DType::kI64, {samples});
        Rng rng(keyed_seed(11, {number, m}));
        for (auto& label : labels.as<std::int64_t>())
            label = static_cast<std::int64_t>(rng.below(10));
        std::map<int, HostTensor> values;
        values[0] = drawn({samples, 3, 8, 8}, keyed_seed(12, {number, m}));
        for (std::uint32_t s = 0; s < stages_.size(); ++s) {
            std::vector<HostTensor> inputs;
            for (const ValueWay& way : index_.ways_of({s}).arriving)
                inputs.push_back(values.at(way.value));
            const auto outputs = stages_[s]->forward(m, inputs, &labels);
            ASSERT_TRUE(outputs) << outputs.error().message;
            const std::vector<int> leaving = flow_.leaving(index_.layers_of({s}));
            for (std::size_t i = 0; i < outputs->size(); ++i) values[leaving[i]] = (*outputs)[i];
        }
    }

    void backward(std::uint32_t m, bool split_backward) {
        std::map<std::pair<int, std::uint32_t>, HostTensor> gradients;  // value, whose
        for (auto s = static_cast<std::uint32_t>(stages_.size()); s-- > 0;) {
            std::vector<HostTensor> given;
            for (const ValueWay& way : index_.ways_of({s}).returning)
                given.push_back(gradients.at({way.value, way.stage->value}));
            const auto found = split_backward ? stages_[s]->input_gradient(m, given)
                                              : stages_[s]->backward(m, given);
            ASSERT_TRUE(found) << found.error().message;
            if (split_backward) {
                ASSERT_TRUE(stages_[s]->weight_gradient(m));
            }
            const StageWays& ways = index_.ways_of({s});
            for (std::size_t i = 0; i < found->size(); ++i)
                if ((*found)[i].defined()) gradients[{ways.arriving[i].value, s}] = (*found)[i];
        }
    }

    Plan plan_;
    ValueGraph flow_;
    PlanIndex index_;
    std::vector<std::unique_ptr<Executor>> stages_;
};

std::map<std::string, std::string> trained(const ModelSpec& spec, const std::vector<int>& cuts,
                                           const Segments& recomputed = {},
                                           bool split_backward = false) {
    Pipeline pipeline(spec, cuts, recomputed);
    for (std::uint64_t step = 0; step < 3; ++step) pipeline.step(step, {3, 3, 2}, split_backward);
    return pipeline.state();
}

class GraphEngine : public testing::Test {
  protected:
    static void SetUpTestSuite() { configure_torch(1); }
};

TEST_F(GraphEngine, TheSameBytesForEveryCut) {
    const auto whole = trained(small(), {0});
    ASSERT_EQ(whole.size(), 8U + 6U);  // tensors, and a moment for each parameter
    for (int cuts = 1; cuts < 16; ++cuts) {
        std::vector<int> first_layers{0};
        for (int layer = 1; layer < 5; ++layer)
            if ((cuts >> (layer - 1)) % 2 == 1) first_layers.push_back(layer);
        EXPECT_EQ(trained(small(), first_layers), whole) << "cuts " << cuts;
        EXPECT_EQ(trained(small(), first_layers, test::kWhole), whole)
            << "recomputed, cuts " << cuts;
        EXPECT_EQ(trained(small(), first_layers, {}, true), whole) << "split, cuts " << cuts;
    }
}

TEST_F(GraphEngine, TheSameBytesForEverySegmentThatIsRecomputed) {
    const auto whole = trained(small(), {0});
    for (int layers = 1; layers < 32; ++layers) {
        Segments single, runs;
        for (int layer = 0; layer < 5; ++layer) {
            if ((layers >> layer) % 2 == 0) continue;
            single.push_back({layer, layer});
            if (runs.empty() || runs.back().last + 1 < layer) runs.push_back({layer, layer});
            runs.back().last = layer;
        }
        EXPECT_EQ(trained(small(), {0}, single), whole) << "one by one, layers " << layers;
        EXPECT_EQ(trained(small(), {0}, runs), whole) << "run by run, layers " << layers;
        EXPECT_EQ(trained(small(), {0, 3}, runs), whole) << "in two stages, layers " << layers;
    }
}

// Autograd hands one tensor out as the gradient of everything that was only added: two parameters,
// and the input that goes to the layer before. What is added up must be nobody else's.
TEST_F(GraphEngine, ParametersWithOneGradientBetweenThemHaveTheirOwnSums) {
    ModelSpec spec;
    spec.sha256 = "0";
    spec.input_shape = {10};
    spec.graph = R"({"format":"ecopipe-graph/1","made_by":"by hand","aten":"1.13",
"inputs":[{"name":"x","dtype":"F32","shape":["B",10]}],
"values":{"a":{"dtype":"F32","shape":["B",10],"gradient":true},
          "b":{"dtype":"F32","shape":["B",10],"gradient":true}},
"nodes":[{"name":"a","kind":"Scale","in":["x"],"out":[["a",0]],"tensors":["w"],
          "ops":[["aten::mul.Tensor",["%x","@w"],{},1]]},
         {"name":"b","kind":"Place","in":["a"],"out":[["b",1]],"tensors":["p","q"],
          "ops":[["aten::add.Tensor",["%a","@p"],{},1],["aten::add.Tensor",["%0","@q"],{},1]]}],
"outputs":["b"],
"tensors":{"w":{"dtype":"F32","shape":[10],"kind":"parameter"},
           "p":{"dtype":"F32","shape":[1,10],"kind":"parameter"},
           "q":{"dtype":"F32","shape":[1,10],"kind":"parameter"}},
"tied":[],"proof":{}})";
    const HostTensor x = drawn({4, 10}, 1);
    const auto after = [&](const std::vector<std::int64_t>& micro_batches) {
        ExecutorOptions options;
        options.range = {0, 1};
        auto executor = std::move(*Executor::create(spec, options));
        for (const char* name : {"w", "p", "q"})
            EXPECT_TRUE(executor->load_state(
                name, drawn(*name == 'w' ? Shape{10} : Shape{1, 10}, keyed_seed(2, name))));
        executor->begin_step(0, 4);
        std::int64_t first = 0;
        for (std::uint32_t m = 0; m < micro_batches.size(); ++m) {
            const std::int64_t samples = micro_batches[m];
            HostTensor input = HostTensor::allocate(DType::kF32, {samples, 10});
            std::memcpy(input.data(), x.data() + first * 40, input.bytes());
            HostTensor labels = HostTensor::allocate(DType::kI64, {samples});
            for (std::int64_t i = 0; i < samples; ++i)
                labels.as<std::int64_t>()[static_cast<std::size_t>(i)] = first + i;
            first += samples;
            EXPECT_TRUE(executor->forward(m, {input}, &labels));
        }
        for (std::uint32_t m = 0; m < micro_batches.size(); ++m)
            EXPECT_TRUE(executor->backward(m, {}));
        static_cast<void>(executor->finish_step());
        executor->commit(1, 1);
        return executor->state(false);
    };
    const TensorMap one = after({4});
    const TensorMap four = after({1, 1, 1, 1});
    for (std::size_t i = 0; i < one.size(); ++i)
        for (std::size_t k = 0; k < 10; ++k)
            EXPECT_NEAR(one[i].tensor.as<float>()[k], four[i].tensor.as<float>()[k], 1e-6)
                << one[i].name;
}

TEST_F(GraphEngine, FrozenLayersStayAndNothingRunsBackwardLeftOfThem) {
    ModelSpec spec = small();
    spec.freeze = {"a.*", "b.*"};
    const auto whole = trained(spec, {0});
    for (const std::vector<int>& cuts : {std::vector<int>{0, 2}, {0, 1, 3}, {0, 1, 2, 3, 4}})
        EXPECT_EQ(trained(spec, cuts), whole);
    EXPECT_EQ(whole.size(), 8U + 3U);
}

TEST_F(GraphEngine, AFrozenNormMayUseItsStoredStatistics) {
    ModelSpec spec = small();
    spec.freeze = {"a.*", "b.*"};
    const auto before = Pipeline(spec, {0}, {}).state();
    const auto usual = trained(spec, {0});
    spec.frozen_norm_evaluates = true;
    const auto whole = trained(spec, {0});
    EXPECT_EQ(trained(spec, {0, 1, 3}), whole);
    for (const char* name : {"a.bn.running_mean", "a.bn.running_var"}) {
        EXPECT_EQ(whole.at(name), before.at(name));
        EXPECT_NE(usual.at(name), before.at(name));
    }
    EXPECT_NE(whole.at("e.weight"), usual.at("e.weight"));
    // It has no parameters of its own, and its layer is trained.
    spec.freeze = {"b.*"};
    EXPECT_EQ(inspect_model(spec).error().message,
              "--frozen-norm eval: the model has no batch norm with statistics whose parameters "
              "are frozen");
}

TEST_F(GraphEngine, AnOperatorThatTakesOtherArgumentsIsRefusedWithItsNode) {
    const auto refused = [](const std::string& from, const std::string& to) {
        ModelSpec spec = small();
        spec.graph.replace(spec.graph.find(from), from.size(), to);
        const auto info = inspect_model(spec);
        return info ? std::string() : info.error().message;
    };
    EXPECT_EQ(refused(R"(["aten::relu",["%0"])", R"(["aten::relu",["%0",1])")
                  .find("graph.json: node b: aten::relu: has more arguments"),
              0U);
    EXPECT_EQ(refused(R"(["aten::relu",["%0"])", R"(["aten::relu",[1.5])"), "");  // a number is one
    EXPECT_EQ(refused(R"(["aten::relu",["%0"])", R"(["aten::relu",[null])"),
              "graph.json: node b: aten::relu: self: expected Tensor");
    EXPECT_EQ(refused(R"(["aten::relu",["%0"])", R"(["aten::relu",[])"),
              "graph.json: node b: aten::relu: self is missing");
    EXPECT_EQ(refused(R"(["ecopipe::dropout",["%0",0.25])", R"(["ecopipe::dropout",["%0"])"),
              "graph.json: node c: ecopipe::dropout: expected 2 arguments and one output");
    // What LibTorch would take, and then read past an end, divide by zero or stop at.
    const auto relu_as = [&](const std::string& op) {
        return refused(R"(["aten::relu",["%0"],{})", op);
    };
    EXPECT_EQ(relu_as(R"(["aten::reflection_pad1d",["%0",[]],{})"),
              "graph.json: node b: aten::reflection_pad1d: padding: expected 2 numbers");
    EXPECT_EQ(relu_as(R"(["aten::clone",["%0"],{"memory_format":{"dtype":"I64"}})"),
              "graph.json: node b: aten::clone: memory_format: expected MemoryFormat");
    EXPECT_EQ(
        relu_as(R"(["aten::pixel_shuffle",["%0",9223372036854775807],{})"),
        "graph.json: node b: aten::pixel_shuffle: upscale_factor: expected numbers of at most "
        "2147483648");
    EXPECT_EQ(relu_as(R"(["aten::gather",["%0",1,"%0"],{"sparse_grad":true})"),
              "graph.json: node b: aten::gather: sparse_grad: expected false: gradients are dense "
              "here");
    EXPECT_EQ(relu_as(R"(["aten::gather",["%0",1,"%0"],)"
                      R"({"sparse_grad":{"training":true,"evaluation":false}})"),
              "graph.json: node b: aten::gather: sparse_grad: expected false: gradients are dense "
              "here");
    EXPECT_EQ(relu_as(R"(["aten::slice.Tensor",["%0",1,0,9223372036854775807],{})"), "");
    EXPECT_EQ(relu_as(R"(["aten::max_pool2d",["%0",[2],[]],{})"), "");
}

TEST_F(GraphEngine, WhatIsTooLargeOrDoesNotFitIsRefusedWhenItRuns) {
    const auto tried = [](const std::string& op) {
        ModelSpec spec = small();
        const std::string from = R"(["aten::relu",["%0"],{})";
        spec.graph.replace(spec.graph.find(from), from.size(), op);
        const auto result = try_model(
            spec, {}, Batch{drawn({2, 3, 8, 8}, 1), HostTensor::allocate(DType::kI64, {2})});
        return result ? std::string() : result.error().message;
    };
    EXPECT_NE(tried(R"(["aten::full",[[65536,65536],1],{})")
                  .find("more than the 4294967296 that one may have here"),
              std::string::npos);
    EXPECT_NE(tried(R"(["aten::expand",["@b.weight",[65536,65536,4,4,3,3]],{})")
                  .find("makes a tensor of more than 4096 MiB"),
              std::string::npos);
    for (const char* parts : {R"(["aten::tensor_split.sections",["%0",268435456,1],{})",
                              R"(["aten::chunk",["%0",2048,1],{})"})
        EXPECT_NE(tried(parts).find("makes more than 1024 tensors"), std::string::npos) << parts;
    EXPECT_NE(tried(R"(["aten::rnn_tanh.input",["%0","%0",["@b.weight","@b.weight"],)"
                    R"(false,1,0.0,false,false,false],{})")
                  .find("expected an input of three dimensions"),
              std::string::npos);
}

TEST_F(GraphEngine, WhatCannotBeComputedIsOneLineWithItsNode) {
    ModelSpec spec = small();
    const std::string from = R"(["aten::cat",[["%a","%b","%c"],1])";
    spec.graph.replace(spec.graph.find(from), from.size(), R"(["aten::cat",[["%a","%b","%c"],7])");
    const auto tried =
        try_model(spec, {}, Batch{drawn({2, 3, 8, 8}, 1), HostTensor::allocate(DType::kI64, {2})});
    ASSERT_FALSE(tried);
    EXPECT_NE(tried.error().message.find("layer 3 (d)"), std::string::npos)
        << tried.error().message;
    EXPECT_NE(tried.error().message.find("aten::cat"), std::string::npos) << tried.error().message;
    EXPECT_EQ(tried.error().message.find('\n'), std::string::npos);
}

TEST_F(GraphEngine, ItsProfileSaysWhatItsLayersHandOneAnother) {
    ProfileRequest request;
    request.spec = small();
    request.micro_batches = {2, 3};
    request.seconds_per_size = 0;
    request.batch = [](int samples) -> Result<Batch> {
        HostTensor labels = HostTensor::allocate(DType::kI64, {samples});
        for (std::int64_t& label : labels.as<std::int64_t>()) label = 1;
        return Batch{drawn({samples, 3, 8, 8}, 1), std::move(labels)};
    };
    const auto profile = profile_model(request);
    ASSERT_TRUE(profile) << profile.error().message;
    const std::uint64_t map = 4 * 8 * 8 * 4;  // bytes of four channels
    const std::vector<ValueProfile> expected{{-1, {0}, 3 * 8 * 8 * 4, true},
                                             {0, {1, 2, 3}, map, true},
                                             {1, {2, 3}, map, true},
                                             {2, {3}, map, true},
                                             {3, {4}, map, true},
                                             {3, {4}, map / 4, false},
                                             {4, {5}, 40, true}};
    EXPECT_EQ(profile->values, expected);
    // What crosses the cuts is made of them.
    EXPECT_EQ(profile->layers[0].output_bytes_per_sample, map);
    EXPECT_EQ(profile->layers[1].output_bytes_per_sample, 2 * map);
    EXPECT_EQ(profile->layers[2].output_bytes_per_sample, 3 * map);
    EXPECT_EQ(profile->layers[3].output_bytes_per_sample, map + map / 4);
    const auto again = parse_profile(profile_text(*profile), "p.json");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again->values, expected);
}

}  // namespace
}  // namespace ecopipe
