"""Plain vision transformers as branches: presets, module, weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from piip_mm.checks import check_bool, check_choice
from piip_mm.weights.rename import Rule
from piip_mm.weights.resize import resize_rows

from ..layers import BLOCK_NORMS, SelfAttention
from .geometry import PositionedArch
from .plain import PositionedBranch

_EPS = 1e-6

_PARTS = r'norm[12]|attn\.(?:qkv|proj|q_norm|k_norm)|mlp\.fc[12]|ls[12]'

#: Names in the published code, the releases of DeiT, DeiT III, MAE, DINOv2 and InternViT,
#: and timm.
_WEIGHT_RULES: list[Rule] = [
    (r'patch_embed\.proj\.(.+)', r'patch_embed.\1'),
    (r'pos_embed|cls_token', r'\g<0>'),
    (r'(blocks\.\d+)\.gamma_([12])', r'\1.ls\2.gamma'),
    (rf'blocks\.\d+\.(?:{_PARTS})\..+', r'\g<0>'),
    # A published branch may have an upsampler that is never used.
    (r'dist_token|mask_token|(?:norm|fc_norm|head|head_dist|up[12])\..+', None),
    # The decoder of MAE.
    (r'decoder_.+', None),
]


@dataclass(frozen=True, kw_only=True)
class ViTArch(PositionedArch):
    """Geometry of a plain vision transformer.

    Attributes:
        qkv_bias: Whether query, key and value have a bias.
        norm: One of :data:`piip_mm.models.layers.BLOCK_NORMS`.
        qk_norm: Whether queries and keys are normalised over the full width.
        cls_pos_row: Whether the position embedding is stored with a row for the class
            token in front, as the published InternViT, MAE, DINOv2 and AugReg branches
            store it. Only class tokens with a position use this row.
    """

    qkv_bias: bool = True
    norm: str = 'LN'
    qk_norm: bool = False
    cls_pos_row: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        check_choice('arch.norm', self.norm, BLOCK_NORMS)
        for name in ('qkv_bias', 'qk_norm', 'cls_pos_row'):
            check_bool(f'arch.{name}', getattr(self, name))


def _vit(size: str, **options: Any) -> ViTArch:
    dims, layers, heads = {
        'tiny': (192, 12, 3),
        'small': (384, 12, 6),
        'base': (768, 12, 12),
        'large': (1024, 24, 16),
        'huge': (1280, 32, 16),
    }[size]
    return ViTArch(embed_dims=dims, num_layers=layers, num_heads=heads, **options)


#: Presets: DeiT (arXiv 2012.12877), DeiT III (2204.07118), AugReg (2106.10270), MAE
#: (2111.06377), DINOv2 (2304.07193), InternViT-6B (2312.14238). The published PIIP
#: models give every branch a layer scale, which DeiT, AugReg and MAE do not have; it
#: starts at 1.
VIT_ARCHS: dict[str, ViTArch] = {
    **{f'deit_{size}': _vit(size) for size in ('tiny', 'small', 'base')},
    **{f'deit3_{size}': _vit(size) for size in ('small', 'base', 'large')},
    **{
        f'augreg_{size}': _vit(size, cls_pos_row=True, pos_grid=24)
        for size in ('tiny', 'small', 'base', 'large')
    },
    **{f'mae_{size}': _vit(size, cls_pos_row=True) for size in ('base', 'large')},
    'mae_huge': _vit('huge', cls_pos_row=True, pos_grid=16),
    **{
        f'dinov2_{size}': _vit(size, cls_pos_row=True, pos_grid=37)
        for size in ('small', 'base', 'large')
    },
    'internvit_6b': ViTArch(
        embed_dims=3200,
        num_layers=48,
        num_heads=25,
        qkv_bias=False,
        init_values=0.1,
        norm='RMS',
        qk_norm=True,
        cls_pos_row=True,
        pos_grid=16,
    ),
}


@MODELS.register_module()
class PIIPViT(PositionedBranch):
    """Plain vision transformer: DeiT, DeiT III, AugReg, MAE, DINOv2, InternViT-6B.

    As a branch it has no final norm, and a class token only on request. Any image of at
    least one patch works: pixels that do not fill a patch are dropped, and the position
    embedding is interpolated bicubically to the token grid.

    Args:
        arch: Name of a preset (:data:`VIT_ARCHS`) or the fields of :class:`ViTArch`.
        img_size: Side of the branch's image in pixels, see :class:`Branch`.
        window_pad: How incomplete windows are filled, see :class:`SelfAttention`.
        with_cls_token: Whether to add a class token to the patch tokens. It has no
            position embedding unless ``cls_pos`` is set.
        cls_pos: Add the class token's row of the position embedding to the class token;
            the published multi-branch classifiers do not. Requires ``cls_pos_row`` in
            the arch.
        drop_path_schedule: See :class:`PlainBranch`.
        kwargs: Further options, see :class:`PositionedBranch`.

    Raises:
        ValueError: If an option is unknown or out of range, the heads do not divide the
            width, the windows do not fit the number of blocks, or a class token is
            combined with windows.
    """

    arch_type = ViTArch
    presets = VIT_ARCHS
    arch: ViTArch
    weights_title = (
        'plain vision transformers (DeiT, DeiT III, AugReg, MAE, DINOv2, InternViT)'
    )
    optional_weights = r'cls_token|blocks\.\d+\.ls[12]\.gamma'

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        img_size: int,
        *,
        window_pad: str = 'zero_input',
        with_cls_token: bool = False,
        cls_pos: bool = False,
        drop_path_schedule: str = 'constant',
        **kwargs: Any,
    ) -> None:
        super().__init__(arch, img_size, drop_path_schedule=drop_path_schedule, **kwargs)
        check_bool('with_cls_token', with_cls_token)
        check_bool('cls_pos', cls_pos)
        if with_cls_token and any(self.windows):
            raise ValueError(
                f'with_cls_token=True with windows of {self.windows}: a class token '
                'does not belong to any window; use global attention or no class token'
            )
        if cls_pos and not (with_cls_token and self.arch.cls_pos_row):
            raise ValueError(
                f'cls_pos=True needs with_cls_token=True (got {with_cls_token}) and an '
                f'arch with cls_pos_row=True (got {self.arch.cls_pos_row})'
            )
        dims = self.arch.embed_dims
        num_rows = self.arch.cls_pos_row + math.prod(self.pos_grid)
        self.pos_embed = nn.Parameter(torch.zeros(1, num_rows, dims))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.embedding = ('patch_embed', 'pos_embed')
        self.cls_pos = cls_pos
        if with_cls_token:
            self.num_prefix_tokens = 1
            self.has_cls_token = True
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dims))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
            self.embedding += ('cls_token',)
        qk_norm = partial(BLOCK_NORMS[self.arch.norm], eps=_EPS)

        def attention(window: int | None) -> nn.Module:
            return SelfAttention(
                dims,
                self.arch.num_heads,
                qkv_bias=self.arch.qkv_bias,
                qk_norm=qk_norm if self.arch.qk_norm else None,
                window_size=window,
                window_pad=window_pad,
            )

        self.build_blocks(attention, norm=self.arch.norm, norm_eps=_EPS)

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        tokens, grid = self.embed_patches(image)
        num_rows = math.prod(self.pos_grid)
        rows = resize_rows(self.pos_embed[:, -num_rows:], self.pos_grid, grid)
        # Under autocast the sum has the type of the positions, so that neither they nor
        # the residual stream of a network without layer scale are rounded.
        tokens = tokens + rows.to(self.pos_embed.dtype)
        if self.num_prefix_tokens:
            cls_token: Tensor = self.cls_token
            if self.cls_pos:
                cls_token = cls_token + self.pos_embed[:, :1]
            tokens = torch.cat([cls_token.expand(len(tokens), -1, -1), tokens], 1)
        return tokens, grid

    def weight_rules(self) -> Sequence[Rule]:
        if self.has_cls_token:
            return _WEIGHT_RULES
        return [(r'cls_token', None), *_WEIGHT_RULES]

    def fit_weight(self, name: str, tensor: Tensor) -> Tensor:
        """See :meth:`Branch.fit_weight`; also resizes the position embedding."""
        if name == 'pos_embed':
            return self.fit_positions(tensor, cls_row=self.arch.cls_pos_row)
        return super().fit_weight(name, tensor)
