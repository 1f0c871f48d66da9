"""Weights of ConvNeXt."""

from __future__ import annotations

import re
from itertools import accumulate

from piip_mm.models.branches.convnext import PIIPConvNeXt

from ..rename import Rule, rename
from .base import Family, family_of

# Hugging Face's class with a head keeps the network under 'convnext', the published PIIP
# code under 'convnext_model'.
_HF = r'(?:convnext(?:_model)?\.)?'

#: Inside a block: Hugging Face, the original release, timm.
_BLOCK_RULES: list[Rule] = [
    (r'(?:dwconv|conv_dw)\.(.+)', r'conv_dw.\1'),
    (r'(?:layernorm|norm)\.(.+)', r'norm.\1'),
    (r'(?:pwconv|mlp\.fc)([12])\.(.+)', r'mlp.fc\1.\2'),
    (r'layer_scale_parameter|gamma', 'gamma'),
]


def _rules(branch: PIIPConvNeXt) -> list[Rule]:
    """Rules for Hugging Face, timm and the original release; cut blocks are dropped."""
    # Every stage but the first begins with its down-sampling layer.
    lengths = [depth + 1 for depth in branch.arch.depths]
    first_blocks = list(accumulate(lengths, initial=0))

    def flat(index: int, name: str) -> str | None:
        return f'blocks.{index}.{name}' if index < branch.depth else None

    def downsample(match: re.Match[str]) -> str | None:
        return flat(first_blocks[int(match[1])] - 1, match[2])

    def block(match: re.Match[str]) -> str | None:
        stage, index = int(match[1]), int(match[2])
        name = rename(match[3], _BLOCK_RULES)
        if index >= branch.arch.depths[stage]:
            # Of another architecture, not of the next stage.
            return match[0]
        return name and flat(first_blocks[stage] + index, name)

    return [
        (rf'{_HF}embeddings\.patch_embeddings\.(.+)', r'stem.0.\1'),
        (rf'{_HF}embeddings\.layernorm\.(.+)', r'stem.1.\1'),
        (r'(?:stem|downsample_layers\.0)\.([01]\..+)', r'stem.\1'),
        (rf'{_HF}encoder\.stages\.([1-3])\.downsampling_layer\.([01]\..+)', downsample),
        (r'stages\.([1-3])\.downsample\.([01]\..+)', downsample),
        (r'downsample_layers\.([1-3])\.([01]\..+)', downsample),
        (rf'{_HF}encoder\.stages\.([0-3])\.layers\.(\d+)\.(.+)', block),
        (r'stages\.([0-3])\.(?:blocks\.)?(\d+)\.(.+)', block),
        (rf'{_HF}layernorm\..+|(?:classifier|norm|norm_pre|head)\..+', None),
    ]


@family_of.register
def _convnext_family(branch: PIIPConvNeXt) -> Family:
    return Family(
        title='ConvNeXt (Hugging Face, timm, the original release)',
        rules=_rules(branch),
        optional=r'blocks\.\d+\.gamma',
    )
