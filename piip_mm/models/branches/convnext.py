"""ConvNeXt (arXiv 2201.03545) as a branch: presets, module, weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mmengine.registry import MODELS
from timm.models.convnext import ConvNeXt, ConvNeXtStage
from torch import Tensor, nn

from piip_mm.checks import check_finite, check_int, check_ints, check_rate
from piip_mm.weights.rename import Rule, rename

from ..layers import as_map, as_tokens
from .base import Branch
from .geometry import resolve_arch

_EPS = 1e-6
_NUM_STAGES = 4
_STEM_STRIDE = 4

# Hugging Face's class with a head keeps the network under 'convnext', the published PIIP
# code under 'convnext_model'.
_HF = r'(?:convnext(?:_model)?\.)?'

#: Names inside a block, in files of Hugging Face, the original release and timm.
_BLOCK_RULES: list[Rule] = [
    (r'(?:dwconv|conv_dw)\.(.+)', r'conv_dw.\1'),
    (r'(?:layernorm|norm)\.(.+)', r'norm.\1'),
    (r'(?:pwconv|mlp\.fc)([12])\.(.+)', r'mlp.fc\1.\2'),
    (r'layer_scale_parameter|gamma', 'gamma'),
]


@dataclass(frozen=True, kw_only=True)
class ConvNeXtArch:
    """Geometry of a ConvNeXt.

    Attributes:
        depths: Blocks in each of the four stages, not counting down-sampling layers.
        dims: Width C of each stage.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ('depths', 'dims'):
            values = getattr(self, name)
            check_ints(f'arch.{name}', values)
            if len(values) != _NUM_STAGES:
                raise ValueError(
                    f'arch.{name}={values}: expected one value for each of the '
                    f'{_NUM_STAGES} stages'
                )
            object.__setattr__(self, name, tuple(values))

    @property
    def widths(self) -> tuple[int, ...]:
        """C after each block, counting down-sampling layers as blocks."""
        return self._by_block(self.dims)

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride in pixels after each block, counting down-sampling layers as blocks."""
        return self._by_block([_STEM_STRIDE * 2**stage for stage in range(_NUM_STAGES)])

    def _by_block(self, values: Sequence[int]) -> tuple[int, ...]:
        return tuple(
            value
            for stage, (value, depth) in enumerate(zip(values, self.depths, strict=True))
            for _ in range(depth + (stage > 0))
        )


#: Models of the paper, under the names of the paper's weights.
CONVNEXT_ARCHS: dict[str, ConvNeXtArch] = {
    f'convnext_{size}': ConvNeXtArch(
        depths=(3, 3, middle, 3),
        dims=tuple(width * 2**stage for stage in range(_NUM_STAGES)),
    )
    for size, middle, width in (
        ('tiny', 9, 96),
        ('small', 27, 96),
        ('base', 27, 128),
        ('large', 27, 192),
        ('xlarge', 27, 256),
    )
}


@MODELS.register_module()
class PIIPConvNeXt(Branch):
    """ConvNeXt without its final norm, as one flat list of blocks.

    The down-sampling layer before a stage (LayerNorm and a 2x2 convolution of stride 2)
    counts as a block: ConvNeXt-T with stages of 3, 3, 9 and 3 blocks has 21 blocks, of
    which 3, 7 and 17 halve the grid. Each of these drops an odd last row or column.

    Parameters of a ConvNeXt do not take part in layer-wise learning-rate decay, as in
    the published training: all of them have the top layer id and the full rate.

    Args:
        arch: Name of a preset (:data:`CONVNEXT_ARCHS`) or the fields of
            :class:`ConvNeXtArch`.
        img_size: Side of the branch's image in pixels, see :class:`Branch`.
        in_channels: Channels of the image.
        drop_path_rate: Stochastic depth rate of the last block; the rate grows linearly
            from 0 over the blocks, not counting down-sampling layers.
        layer_scale_init_value: Initial layer scale; None for no layer scale.
        kwargs: Further options, see :class:`Branch`.

    Raises:
        ValueError: If an option is unknown or out of range.
    """

    embedding = ('stem',)
    has_layers = False
    weights_title = 'ConvNeXt (Hugging Face, timm, the original release)'
    optional_weights = r'blocks\.\d+\.gamma'

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        img_size: int,
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float | None = 1e-6,
        **kwargs: Any,
    ) -> None:
        geometry = resolve_arch(arch, ConvNeXtArch, CONVNEXT_ARCHS)
        check_int('in_channels', in_channels)
        check_rate('drop_path_rate', drop_path_rate)
        if layer_scale_init_value is not None:
            check_finite('layer_scale_init_value', layer_scale_init_value)
        super().__init__(
            img_size=img_size,
            dims=geometry.widths,
            strides=geometry.strides,
            **kwargs,
        )
        self.arch = geometry
        self.in_channels = in_channels
        network = ConvNeXt(
            in_chans=in_channels,
            num_classes=0,
            depths=geometry.depths,
            dims=geometry.dims,
            ls_init_value=layer_scale_init_value,
            norm_eps=_EPS,
            drop_path_rate=drop_path_rate,
        )
        self.stem = network.stem
        self.blocks = nn.ModuleList()
        for stage in network.stages:
            assert isinstance(stage, ConvNeXtStage)
            if isinstance(stage.downsample, nn.Sequential):
                self.blocks.append(stage.downsample)
            self.blocks.extend(stage.blocks)

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        stem: Any = self.stem
        return _to_tokens(stem(image.to(stem[0].weight.dtype)))

    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int
    ) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`Branch.run`; the width may change too."""
        x_BCHW = as_map(tokens, grid)
        for block in self.blocks[start:stop]:
            x_BCHW = self.run_block(block, x_BCHW)
        return _to_tokens(x_BCHW)

    def weight_rules(self) -> Sequence[Rule]:
        # Every stage but the first begins with its down-sampling layer.
        lengths = [depth + 1 for depth in self.arch.depths]
        first_blocks = list(accumulate(lengths, initial=0))

        def downsample(match: re.Match[str]) -> str:
            return f'blocks.{first_blocks[int(match[1])] - 1}.{match[2]}'

        def block(match: re.Match[str]) -> str | None:
            stage, index = int(match[1]), int(match[2])
            name = rename(match[3], _BLOCK_RULES)
            if index >= self.arch.depths[stage]:
                # A block of a deeper architecture. Keeping its name makes loading fail;
                # its index would be that of a block of the next stage.
                return match[0]
            return f'blocks.{first_blocks[stage] + index}.{name}'

        return [
            (rf'{_HF}embeddings\.patch_embeddings\.(.+)', r'stem.0.\1'),
            (rf'{_HF}embeddings\.layernorm\.(.+)', r'stem.1.\1'),
            (r'(?:stem|downsample_layers\.0)\.([01]\..+)', r'stem.\1'),
            (
                rf'{_HF}encoder\.stages\.([1-3])\.downsampling_layer\.([01]\..+)',
                downsample,
            ),
            (r'stages\.([1-3])\.downsample\.([01]\..+)', downsample),
            (r'downsample_layers\.([1-3])\.([01]\..+)', downsample),
            (rf'{_HF}encoder\.stages\.([0-3])\.layers\.(\d+)\.(.+)', block),
            (r'stages\.([0-3])\.(?:blocks\.)?(\d+)\.(.+)', block),
            (rf'{_HF}layernorm\..+|(?:classifier|norm|norm_pre|head)\..+', None),
        ]


def _to_tokens(x_BCHW: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """(B, C, H, W) map to (B, N, C) tokens and their (H, W) grid."""
    return as_tokens(x_BCHW), (x_BCHW.shape[2], x_BCHW.shape[3])
