"""The same network without what makes it fast: the yardstick of counts and benchmarks.

It computes what the published code computes: padding of the windows is projected and
attended to like any token, tokens and levels lie in memory as they do there, deformable
attention is in float32 with its projections, and nothing is fused but the attention.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from piip_mm.models.branches.plain import PlainBranch
from piip_mm.models.layers import (
    DeformableCrossAttention,
    SelfAttention,
    as_output,
    as_tokens,
    token_centres,
)
from piip_mm.models.layers.self_attention import join_windows, split_windows
from piip_mm.models.pyramid import Pyramid
from piip_mm.ops import deformable_attention
from piip_mm.ops.deform_attn.with_torch import sample_maps
from piip_mm.ops.tensors import at_least_float32, filled, no_autocast


def plain_reference(model: nn.Module) -> Any:
    """Copy of a model, with the same parameters, that computes the same in the plain
    way."""
    model = copy_with_shared_tensors(model)
    for module in model.modules():
        forward = _PLAIN.get(type(module))
        if forward is not None:
            module.forward = partial(forward, module)
        if isinstance(module, PlainBranch):
            module.embed_patches = partial(_embed_patches, module)  # type: ignore[method-assign]
    return model


def copy_with_shared_tensors(model: nn.Module) -> Any:
    """Copy of the modules of a model, with the same parameters and buffers."""
    shared = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(x): x for x in shared})


def _self_attention(layer: SelfAttention, x_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
    window = layer.window_size
    if window is None:
        return layer.proj(_attend(layer, layer.qkv(x_BNC)))
    pad_bottom, pad_right = (-side % window for side in grid)
    padding = (0, 0, 0, pad_right, 0, pad_bottom)
    x_BHWC = x_BNC.unflatten(1, grid)
    if layer.window_pad == 'zero_qkv':
        qkv = F.pad(layer.qkv(x_BHWC), padding)
    else:
        qkv = layer.qkv(F.pad(x_BHWC, padding))
    out = _attend(layer, split_windows(qkv, (window, window)))
    out = join_windows(out, (window, window), qkv.shape[1:3])
    return layer.proj(out[:, : grid[0], : grid[1]].flatten(1, 2))


def _attend(layer: SelfAttention, qkv: Tensor) -> Tensor:
    q, k, v = qkv.chunk(3, -1)
    q, k, v = (
        x.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
        for x in (layer.q_norm(q), layer.k_norm(k), v)
    )
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _deformable_attention(
    layer: DeformableCrossAttention,
    query_BQC: Tensor,
    feat_BNF: Tensor,
    query_grid: tuple[int, int],
    feat_grid: tuple[int, int],
) -> Tensor:
    per_point = (layer.num_heads, layer.num_points)
    with no_autocast(query_BQC.device):
        query, feat = at_least_float32(query_BQC, feat_BNF)
        offsets = layer.sampling_offsets(query).unflatten(-1, (*per_point, 2))
        weights = layer.attention_weights(query).unflatten(-1, per_point).softmax(-1)
        centres = token_centres(query_grid, offsets)[:, None, None]
        locations = centres + offsets / filled(feat_grid[::-1], offsets)
        value = layer.value_proj(feat).unflatten(-1, (layer.num_heads, -1))
        args = value, feat_grid, locations, weights
        if value.device.type == 'cuda':
            return layer.output_proj(deformable_attention(*args, layer.backend))
        return layer.output_proj(sample_maps(*args))


def _pyramid(pyramid: Pyramid, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(
        as_output(level(x_BCHW)).contiguous()
        for level, x_BCHW in zip(pyramid.levels, maps, strict=True)
    )


def _embed_patches(branch: PlainBranch, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
    x = branch.patch_embed(image)
    return as_tokens(x), (x.shape[2], x.shape[3])


# By type: a subclass computes something else.
_PLAIN: dict[type[nn.Module], Callable] = {
    DeformableCrossAttention: _deformable_attention,
    SelfAttention: _self_attention,
    Pyramid: _pyramid,
}
