"""Operators that LibTorch 1.13 does not have, as those that it has: the way ATen itself defines them."""

import math

import torch

from .ir import DType, Meta


def attention_drops(node):
    """Whether it is an attention with a rate of dropout above zero."""
    if node.target is not torch.ops.aten.scaled_dot_product_attention.default:
        return False
    return bool(node.args[4] if len(node.args) > 4 else node.kwargs.get("dropout_p", 0.0))


def attention(lowering, node, args, keywords, where):
    """ATen's own definition, which its quicker kernels approximate (_scaled_dot_product_attention_math)."""
    query, key, value = args[:3]
    names = ["attn_mask", "dropout_p", "is_causal"]
    given = dict(zip(names, args[3:])) | keywords
    mask, p, causal = given.get("attn_mask"), given.get("dropout_p", 0.0), given.get("is_causal", False)
    meta = lowering.meta(node.meta["val"], where)
    q_node, k_node, v_node = node.args[:3]
    q, k, v = (lowering.meta(n.meta["val"], where) for n in (q_node, k_node, v_node))
    width = q.shape[-1]
    scale = given.get("scale")
    scaling = math.sqrt(scale if scale is not None else 1.0 / math.sqrt(width))
    if given.get("enable_gqa"):
        groups = q.shape[-3] // k.shape[-3]
        k = Meta(k.dtype, k.shape[:-3] + (q.shape[-3],) + k.shape[-2:])
        v = Meta(v.dtype, v.shape[:-3] + (q.shape[-3],) + v.shape[-2:])
        if groups != 1:
            key = lowering.emit("aten::repeat_interleave.self_int", [key, groups, -3], {}, [k], node, where)
            value = lowering.emit("aten::repeat_interleave.self_int", [value, groups, -3], {}, [v], node, where)
    scores = Meta(q.dtype, q.shape[:-1] + (k.shape[-2],))
    turned = Meta(k.dtype, k.shape[:-2] + (k.shape[-1], k.shape[-2]))

    def emit(name, arguments, like):
        return lowering.emit(name, arguments, {}, [like], node, where)
    q_scaled = emit("aten::mul.Scalar", [query, scaling], q)
    k_turned = emit("aten::transpose.int", [key, -2, -1], turned)
    k_scaled = emit("aten::mul.Scalar", [k_turned, scaling], turned)
    attention = emit("aten::matmul", [q_scaled, k_scaled], scores)
    if causal:
        square = Meta("BOOL", (q.shape[-2], k.shape[-2]))
        ones = lowering.emit("aten::ones", [list(square.shape)], {"dtype": DType("BOOL")}, [square], node, where)
        mask = emit("aten::tril", [ones], square)
        mask_meta = square
    elif mask is not None:
        mask_node = node.args[3] if len(node.args) > 3 else node.kwargs["attn_mask"]
        mask_meta = lowering.meta(mask_node.meta["val"], where)
    if mask is not None:
        if mask_meta.dtype == "BOOL":
            numbers = Meta(q.dtype, mask_meta.shape)
            zeros = lowering.emit("aten::zeros_like", [mask], {"dtype": DType(q.dtype)}, [numbers], node, where)
            no = emit("aten::logical_not", [mask], mask_meta)
            mask = emit("aten::masked_fill.Scalar", [zeros, no, -math.inf], numbers)
        attention = emit("aten::add.Tensor", [attention, mask], scores)
    attention = emit("aten::softmax.int", [attention, -1], scores)
    if p:
        attention = emit("ecopipe::dropout", [attention, p], scores)
    return emit("aten::matmul", [attention, value], meta)


def rms_norm(lowering, node, args, where):
    x, shape = args[:2]
    weight = args[2] if len(args) > 2 else None
    epsilon = args[3] if len(args) > 3 and args[3] is not None else torch.finfo(torch.float32).eps
    meta = lowering.meta(node.meta["val"], where)
    dims = list(range(-len(shape), 0))
    mean = Meta(meta.dtype, meta.shape[:-len(shape)] + (1,) * len(shape))

    def emit(name, arguments, like):
        return lowering.emit(name, arguments, {}, [like], node, where)
    squared = emit("aten::pow.Tensor_Scalar", [x, 2], meta)
    average = emit("aten::mean.dim", [squared, dims, True], mean)
    shifted = emit("aten::add.Scalar", [average, epsilon], mean)
    root = emit("aten::rsqrt", [shifted], mean)
    normed = emit("aten::mul.Tensor", [x, root], meta)
    return normed if weight is None else emit("aten::mul.Tensor", [normed, weight], meta)
