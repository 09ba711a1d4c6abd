#include "domain/optimizer_spec.h"

#include <gtest/gtest.h>

namespace ecopipe {
namespace {

OptimizerSpec spec(const std::string& name, double momentum = 0, DType moments = DType::kF32) {
    OptimizerSpec out{name, momentum};
    out.moments = moments;
    return out;
}

TEST(OptimizerSpec, SaysWhatIsKeptBesideAParameter) {
    const Shape filters{16, 8, 3, 3};  // 1,152 numbers, 72 a filter
    EXPECT_EQ(spec("sgd").state_bytes(filters), 0U);
    EXPECT_EQ(spec("sgd", 0.9).state_bytes(filters), 4 * 1152U);
    EXPECT_EQ(spec("sgd", 0.9, DType::kBF16).state_bytes(filters), 2 * 1152U);
    EXPECT_EQ(spec("adamw").state_bytes(filters), 8 * 1152U);
    EXPECT_EQ(spec("adam", 0, DType::kBF16).state_bytes(filters), 4 * 1152U);
    EXPECT_EQ(spec("adafactor").state_bytes(filters), 4 * (16 + 72U));
    EXPECT_EQ(spec("adafactor").state_bytes({16}), 4 * 16U);
    EXPECT_EQ(spec("adafactor").state_bytes({}), 4U);
    EXPECT_EQ(spec("adafactor").state_bytes({0, 5}), 0U);
    OptimizerSpec proximal = spec("adafactor");
    proximal.proximal_mu = 0.1;
    EXPECT_EQ(proximal.state_bytes(filters), 4 * (16 + 72 + 1152U));
}

TEST(OptimizerSpec, RefusesWhatItDoesNotKnow) {
    for (const char* name : {"sgd", "adam", "adamw", "adafactor"})
        EXPECT_EQ(parse_optimizer(name, "float32").value().name, name);
    EXPECT_EQ(parse_optimizer("adam", "bfloat16").value().moments, DType::kBF16);
    EXPECT_EQ(parse_optimizer("lion", "float32").error().message,
              "--optimizer: expected sgd, adam, adamw or adafactor, found 'lion'");
    EXPECT_EQ(parse_optimizer("sgd", "int8").error().message,
              "--moments: expected float32 or bfloat16, found 'int8'");
    EXPECT_EQ(parse_optimizer("adafactor", "bfloat16").error().message,
              "--moments bfloat16 goes with sgd, adam and adamw, found adafactor");
    EXPECT_FALSE(spec("sgd", 0, DType::kF16).known());  // as a message may say
}

}  // namespace
}  // namespace ecopipe
