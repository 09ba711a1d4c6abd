#include "stage_runtime/engine/model/graph/operators.h"

#include <algorithm>
#include <string>

namespace ecopipe {
namespace {

// scripts/graph_export/operators.py has the same names; structure.graph_operators compares them.
// clang-format off
constexpr std::string_view kNames =
    "aten::abs aten::acos aten::acosh aten::adaptive_avg_pool1d aten::adaptive_avg_pool2d "
    "aten::adaptive_avg_pool3d aten::adaptive_max_pool1d aten::adaptive_max_pool2d "
    "aten::add.Scalar aten::add.Tensor aten::addbmm aten::addmm aten::alias aten::all "
    "aten::all.dim aten::amax aten::amin aten::any aten::any.dim aten::arange aten::arange.start "
    "aten::arange.start_step aten::argmax aten::argmin aten::asin aten::asinh aten::atan "
    "aten::atan2 aten::atanh aten::avg_pool1d aten::avg_pool2d aten::avg_pool3d aten::baddbmm "
    "aten::batch_norm aten::bilinear aten::bitwise_and.Scalar aten::bitwise_and.Tensor "
    "aten::bitwise_not aten::bitwise_or.Scalar aten::bitwise_or.Tensor aten::bitwise_xor.Tensor "
    "aten::bmm aten::cat aten::ceil aten::celu aten::channel_shuffle aten::chunk aten::clamp "
    "aten::clamp.Tensor aten::clamp_max aten::clamp_min aten::clone aten::col2im aten::concat "
    "aten::constant_pad_nd aten::contiguous aten::conv1d aten::conv1d.padding aten::conv2d "
    "aten::conv2d.padding aten::conv3d aten::conv3d.padding aten::conv_transpose1d "
    "aten::conv_transpose2d.input aten::conv_transpose3d.input aten::cos aten::cosh "
    "aten::cosine_similarity aten::cumsum aten::detach aten::diagonal aten::div.Scalar "
    "aten::div.Scalar_mode aten::div.Tensor aten::div.Tensor_mode aten::dot aten::einsum "
    "aten::elu aten::embedding aten::eq.Scalar aten::eq.Tensor aten::erf aten::erfc aten::exp "
    "aten::exp2 aten::expand aten::expand_as aten::expm1 aten::eye aten::flatten.using_ints "
    "aten::flip aten::floor aten::floor_divide aten::floor_divide.Scalar aten::fmod.Scalar "
    "aten::frac aten::full aten::full_like aten::gather aten::ge.Scalar aten::ge.Tensor "
    "aten::gelu aten::glu aten::group_norm aten::gru.input aten::gt.Scalar aten::gt.Tensor "
    "aten::hardshrink aten::hardsigmoid aten::hardswish aten::hardtanh aten::im2col "
    "aten::index.Tensor aten::index_select aten::instance_norm aten::isinf aten::isnan "
    "aten::layer_norm aten::le.Scalar aten::le.Tensor aten::leaky_relu aten::lerp.Scalar "
    "aten::lerp.Tensor aten::linalg_vector_norm aten::linear aten::linspace aten::log "
    "aten::log10 aten::log1p aten::log2 aten::log_sigmoid aten::log_softmax.int aten::logaddexp "
    "aten::logical_and aten::logical_not aten::logical_or aten::logical_xor aten::logsumexp "
    "aten::lstm.input aten::lt.Scalar aten::lt.Tensor aten::masked_fill.Scalar "
    "aten::masked_fill.Tensor aten::matmul aten::max aten::max.dim aten::max_pool1d "
    "aten::max_pool2d aten::max_pool2d_with_indices aten::max_pool3d aten::maximum aten::mean "
    "aten::mean.dim aten::median.dim aten::meshgrid.indexing aten::min aten::min.dim "
    "aten::minimum aten::mish aten::mm aten::movedim.int aten::movedim.intlist aten::mul.Scalar "
    "aten::mul.Tensor aten::mv aten::nan_to_num aten::narrow aten::ne.Scalar aten::ne.Tensor "
    "aten::neg aten::new_full aten::new_ones aten::new_zeros aten::norm.ScalarOpt_dim "
    "aten::numpy_T aten::one_hot aten::ones aten::ones_like aten::outer aten::pad aten::permute "
    "aten::pixel_shuffle aten::pixel_unshuffle aten::pow.Scalar aten::pow.Tensor_Scalar "
    "aten::pow.Tensor_Tensor aten::prelu aten::prod.dim_int aten::reciprocal "
    "aten::reflection_pad1d aten::reflection_pad2d aten::relu aten::relu6 aten::remainder.Scalar "
    "aten::remainder.Tensor aten::repeat aten::repeat_interleave.self_int "
    "aten::replication_pad1d aten::replication_pad2d aten::reshape aten::rms_norm "
    "aten::rnn_relu.input aten::rnn_tanh.input aten::roll aten::round aten::rsqrt "
    "aten::rsub.Scalar aten::rsub.Tensor aten::scalar_tensor aten::scaled_dot_product_attention "
    "aten::scatter.src aten::select.int aten::select_scatter aten::selu aten::sigmoid aten::sign "
    "aten::silu aten::sin aten::sinh aten::slice.Tensor aten::slice_scatter aten::softmax.int "
    "aten::softplus aten::softshrink aten::softsign aten::sort aten::split.Tensor "
    "aten::split.sizes aten::split_with_sizes aten::sqrt aten::square aten::squeeze "
    "aten::squeeze.dim aten::stack aten::std.correction aten::std.dim aten::sub.Scalar "
    "aten::sub.Tensor aten::sum aten::sum.dim_IntList aten::swapaxes aten::t "
    "aten::take_along_dim aten::tan aten::tanh aten::tanhshrink aten::tensor_split.sections "
    "aten::threshold aten::tile aten::to.dtype aten::to.dtype_layout aten::topk "
    "aten::transpose.int aten::tril aten::triu aten::trunc aten::type_as aten::unbind.int "
    "aten::unflatten.int aten::unfold aten::unsqueeze aten::upsample_bicubic2d.vec "
    "aten::upsample_bilinear2d.vec aten::upsample_linear1d.vec aten::upsample_nearest1d.vec "
    "aten::upsample_nearest2d.vec aten::var aten::var.correction aten::var.dim "
    "aten::var_mean.correction aten::view aten::view_as aten::where.Scalar "
    "aten::where.ScalarOther aten::where.ScalarSelf aten::where.self aten::xlogy.Tensor "
    "aten::zeros aten::zeros_like ecopipe::dropout ecopipe::dropout_channels "
    "ecopipe::stochastic_depth";
// clang-format on

std::vector<std::string_view> split(std::string_view text) {
    std::vector<std::string_view> words;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(' '), text.size());
        words.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return words;
}

}  // namespace

const std::vector<std::string_view>& graph_operators() {
    static const std::vector<std::string_view> names = split(kNames);
    return names;
}

bool is_graph_operator(std::string_view name) {
    const auto& names = graph_operators();
    return std::binary_search(names.begin(), names.end(), name);
}

bool is_keyed_draw(std::string_view name) { return name.starts_with("ecopipe::"); }

}  // namespace ecopipe
