"""The operators that a graph may use, and what becomes of those that it may not. stage_runtime/engine/model/graph/operators.cpp
has the same list (a test compares them)."""

# What computes values out of values, by no more than their shapes: no file, no network, no random draw, nothing that writes.
POINTWISE = """
abs acos acosh add.Scalar add.Tensor asin asinh atan atan2 atanh bitwise_and.Scalar bitwise_and.Tensor bitwise_not
bitwise_or.Scalar bitwise_or.Tensor bitwise_xor.Tensor ceil celu clamp clamp.Tensor clamp_max clamp_min cos cosh div.Scalar
div.Scalar_mode div.Tensor div.Tensor_mode elu eq.Scalar eq.Tensor erf erfc exp exp2 expm1 floor floor_divide floor_divide.Scalar
fmod.Scalar frac ge.Scalar ge.Tensor gelu glu gt.Scalar gt.Tensor hardshrink hardsigmoid hardswish hardtanh isinf isnan
le.Scalar le.Tensor leaky_relu lerp.Scalar lerp.Tensor log log10 log1p log2 log_sigmoid logaddexp logical_and logical_not logical_or
logical_xor lt.Scalar lt.Tensor masked_fill.Scalar masked_fill.Tensor maximum minimum mish mul.Scalar mul.Tensor nan_to_num
ne.Scalar ne.Tensor neg pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor prelu reciprocal relu relu6 remainder.Scalar
remainder.Tensor round rsqrt rsub.Scalar rsub.Tensor selu sigmoid sign silu sin sinh softplus softshrink softsign sqrt square
sub.Scalar sub.Tensor tan tanh tanhshrink threshold trunc where.Scalar where.ScalarOther where.ScalarSelf where.self xlogy.Tensor
""".split()
REDUCTIONS = """
all all.dim amax amin any any.dim argmax argmin cumsum log_softmax.int logsumexp max max.dim mean mean.dim median.dim min min.dim
norm.ScalarOpt_dim linalg_vector_norm prod.dim_int softmax.int sort std.correction std.dim sum sum.dim_IntList topk var var.correction
var.dim var_mean.correction
""".split()
SHAPES = """
alias cat chunk clone concat contiguous detach diagonal expand expand_as flatten.using_ints flip gather index.Tensor index_select
meshgrid.indexing movedim.int movedim.intlist narrow numpy_T pad permute pixel_shuffle pixel_unshuffle
channel_shuffle repeat repeat_interleave.self_int reshape roll scatter.src select.int select_scatter slice.Tensor slice_scatter
split.Tensor split.sizes split_with_sizes squeeze squeeze.dim stack swapaxes t take_along_dim tensor_split.sections tile
to.dtype to.dtype_layout transpose.int tril triu type_as unbind.int unflatten.int unsqueeze view view_as constant_pad_nd
reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d im2col col2im unfold
""".split()
FACTORIES = """
arange arange.start arange.start_step eye full full_like linspace new_full new_ones new_zeros ones ones_like scalar_tensor zeros
zeros_like
""".split()
NETWORKS = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d addbmm addmm avg_pool1d avg_pool2d
avg_pool3d baddbmm batch_norm bilinear bmm conv1d conv1d.padding conv2d conv2d.padding conv3d conv3d.padding conv_transpose1d
conv_transpose2d.input conv_transpose3d.input cosine_similarity dot einsum embedding group_norm gru.input instance_norm layer_norm
linear lstm.input matmul max_pool1d max_pool2d max_pool2d_with_indices max_pool3d mm mv one_hot outer rnn_relu.input
rnn_tanh.input upsample_bicubic2d.vec upsample_bilinear2d.vec upsample_linear1d.vec upsample_nearest1d.vec upsample_nearest2d.vec
""".split()
LATER = ["rms_norm", "scaled_dot_product_attention"]  # not in ATen 1.13
OURS = ["dropout", "dropout_channels", "stochastic_depth"]

ALLOWED = {f"aten::{name}" for name in POINTWISE + REDUCTIONS + SHAPES + FACTORIES + NETWORKS}
ALLOWED_LATER = {f"aten::{name}" for name in LATER}
DRAWS = {f"ecopipe::{name}" for name in OURS}

# Operators that may hand on their first argument's memory: what is written into the one is seen in the other.
VIEWS = {"alias", "chunk", "contiguous", "detach", "diagonal", "expand", "expand_as", "flatten", "movedim", "narrow", "numpy_T",
         "permute", "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "swapaxes", "t", "tensor_split", "to",
         "transpose", "type_as", "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as"}

# In place, when nobody else sees the memory: the same numbers in new memory.
OUT_OF_PLACE = {"fill_.Scalar": "full_like", "zero_": "zeros_like"}
# Other names of later versions.
RENAMED = {"aten::_to_copy": "aten::to.dtype",
           "aten::view": "aten::reshape",  # strides may be others here, as those of an attention written out
           "aten::__and__.Tensor": "aten::bitwise_and.Tensor",
           "aten::__or__.Tensor": "aten::bitwise_or.Tensor",
           "aten::__xor__.Tensor": "aten::bitwise_xor.Tensor", "aten::__and__.Scalar": "aten::bitwise_and.Scalar",
           "aten::__or__.Scalar": "aten::bitwise_or.Scalar", "aten::special_erf": "aten::erf", "aten::special_expm1": "aten::expm1",
           "aten::concatenate": "aten::cat", "aten::swapdims": "aten::transpose.int", "aten::moveaxis.int": "aten::movedim.int",
           "aten::multiply.Tensor": "aten::mul.Tensor", "aten::multiply.Scalar": "aten::mul.Scalar",
           "aten::divide.Tensor": "aten::div.Tensor", "aten::divide.Scalar": "aten::div.Scalar",
           "aten::subtract.Tensor": "aten::sub.Tensor", "aten::subtract.Scalar": "aten::sub.Scalar",
           "aten::negative": "aten::neg", "aten::absolute": "aten::abs", "aten::clip": "aten::clamp",
           "aten::greater.Scalar": "aten::gt.Scalar", "aten::less.Scalar": "aten::lt.Scalar",
           "aten::not_equal.Scalar": "aten::ne.Scalar", "aten::true_divide.Tensor": "aten::div.Tensor",
           "aten::true_divide.Scalar": "aten::div.Scalar"}
# Of the tracer, for nobody.
IGNORED = {"aten::_assert_tensor_metadata", "aten::_assert_async.msg", "aten::_assert_scalar", "aten::sym_constrain_range_for_size",
           "aten::sym_constrain_range", "aten::sym_size.int", "aten::sym_numel", "aten::sym_stride.int", "aten::sym_storage_offset"}
