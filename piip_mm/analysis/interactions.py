"""Counting rules of the interactions between branches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from piip_mm.models.interaction import Injector, InteractionStage
from piip_mm.models.layers import CrossAttention, DeformableCrossAttention

from .conventions import Convention, Count
from .layers import conv_flops, linear_flops, norm_flops, num_params

# One bilinear sample costs 4 multiply-adds a channel, its weight another one.
_FLOPS_PER_SAMPLE = 5

# Points that the published counts take for granted.
_NOMINAL_POINTS = 4


def count_interactions(
    stages: Iterable[InteractionStage],
    num_tokens: Iterable[Sequence[int]],
    convention: Convention,
) -> tuple[Count, Count]:
    """Count the interaction stages of a network.

    Args:
        stages: The stages.
        num_tokens: For each stage the patch tokens of each branch.
        convention: What to count.

    Returns:
        The layers, and the core of their attention: the sampling of deformable
        attention, the products of regular attention.
    """
    layers, core = Count(), 0
    for stage, tokens in zip(stages, num_tokens, strict=True):
        edges = [edge for step in stage.pattern for edge in step]
        for edge, injector in zip(edges, stage.injectors.values(), strict=True):
            assert isinstance(injector, Injector)
            feats, queries = (tokens[branch] for branch in edge)
            flops = _injector_flops(injector, queries, feats)
            layers += Count(num_params(injector), flops)
            core += _core_flops(injector, queries, feats, convention)
    return layers, Count(flops=core)


def _injector_flops(injector: Injector, queries: int, feats: int) -> int:
    """An injector without the core of its attention."""
    flops = (
        norm_flops(injector.query_norm, queries)
        + norm_flops(injector.feat_norm, feats)
        + _attention_flops(injector.attn, queries, feats)
    )
    if isinstance(injector.proj, nn.Linear):
        flops += linear_flops(injector.proj, feats)
    if injector.ffn is not None:
        flops += (
            norm_flops(injector.ffn_norm, queries)
            + linear_flops(injector.ffn.fc1, queries)
            + conv_flops(injector.ffn.dwconv, queries)
            + linear_flops(injector.ffn.fc2, queries)
        )
    return flops


def _attention_flops(attn: nn.Module, queries: int, feats: int) -> int:
    """The linear layers of an injector's attention."""
    if isinstance(attn, DeformableCrossAttention):
        of_queries = [attn.sampling_offsets, attn.attention_weights, attn.output_proj]
        of_feats = [attn.value_proj]
    else:
        assert isinstance(attn, CrossAttention)
        of_queries, of_feats = [attn.q, attn.proj], [attn.k, attn.v]
    return sum(linear_flops(layer, queries) for layer in of_queries) + sum(
        linear_flops(layer, feats) for layer in of_feats
    )


def _core_flops(
    injector: Injector, queries: int, feats: int, convention: Convention
) -> int:
    attn = injector.attn
    if not isinstance(attn, DeformableCrossAttention):
        return 2 * queries * feats * attn.proj.in_features
    points, width = attn.num_points, attn.output_proj.in_features
    if convention.nominal_sampling:
        points, width = _NOMINAL_POINTS, attn.output_proj.out_features
    return _FLOPS_PER_SAMPLE * queries * points * width
