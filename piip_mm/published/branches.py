"""The published classes of plain transformers, described by their arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from .arguments import Argument, Table, ignored, only, refuse, translate

#: Makes the config of a branch from published arguments, the side of its image (None: the
#: one that its positions are stored for) and the number of blocks to run (None: all).
BranchConfig: TypeAlias = Callable[
    [Mapping[str, Any], float | None, int | None], dict[str, Any]
]


@dataclass(frozen=True, eq=False)
class PlainClass:
    """A published class of plain transformers; calling it is a :data:`BranchConfig`.

    Args:
        title: What it is, for messages.
        table: Its arguments.
        constants: What its configs have in common.
        defaults: Defaults that differ from those of the table.
        is_windowed: Whether a block has windows, from its published ``window_size`` and
            ``window_attn``.
        linear_rates: Whether drop path rates grow linearly with the blocks.
        cls_pos_row: Whether the class token has a position.
        ignores_unknown: Whether it ignores arguments it does not know.
    """

    title: str
    table: Table
    constants: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    is_windowed: Callable[[int, Any], bool] = lambda size, attn: bool(attn)
    linear_rates: bool = True
    cls_pos_row: bool = False
    ignores_unknown: bool = False

    def __call__(
        self,
        kwargs: Mapping[str, Any],
        img_size: float | None = None,
        num_run: int | None = None,
    ) -> dict[str, Any]:
        config, rest = translate({**self.defaults, **kwargs}, self.table)
        if not self.ignores_unknown:
            refuse(rest, self.title)
        arch = config['arch']
        depth = arch['num_layers']
        if num_run is not None and num_run > depth:
            raise ValueError(
                f'there is no block {num_run - 1} in a branch of depth {depth}'
            )
        num_run = arch['num_layers'] = num_run or depth
        if num_run < depth and self.linear_rates:
            # The rates grow over all blocks, including those that are not run.
            config['drop_path_rate'] *= (num_run - 1) / (depth - 1)
        sizes = _per_block('window_size', config['window_size'], depth)
        windowed = _per_block('window_attn', config.pop('window_attn'), depth)
        config['window_size'] = [
            size if self.is_windowed(size, attn) else None
            for size, attn in zip(sizes, windowed, strict=True)
        ][:num_run]
        config.setdefault('img_size', config.get('pretrain_img_size'))
        if img_size is not None:
            config['img_size'] = img_size
        if self.cls_pos_row:
            arch['cls_pos_row'] = True
        return {**config, **self.constants}


def _per_block(name: str, values: Any, depth: int) -> Sequence[Any]:
    """The values of an argument that is given once or per block."""
    if not isinstance(values, Sequence):
        return [values] * depth
    if len(values) != depth:
        raise ValueError(f'{name}={values}: expected {depth} values, one per block')
    return values


_PLAIN: Table = {
    'depth': Argument('arch.num_layers', 12),
    'embed_dim': Argument('arch.embed_dims', 768),
    'num_heads': Argument('arch.num_heads', 12),
    'mlp_ratio': Argument('arch.mlp_ratio', 4.0),
    'patch_size': Argument('patch_size', 16),
    'in_chans': Argument('in_channels', 3),
    'window_size': Argument('window_size', None, lambda x: 14 if x is None else x),
    'window_attn': Argument('window_attn', False),
    'drop_path_rate': Argument('drop_path_rate', 0.0),
    'with_cp': Argument('with_cp', False),
    'pretrain_img_size': Argument('pretrain_img_size', 224),
    **ignored('img_size', 'pretrain_patch_size', 'pretrained', 'cal_flops'),
}

#: ``vit_models``: DeiT.
deit_branch = PlainClass(
    'a DeiT branch',
    {
        **_PLAIN,
        'window_size': Argument('window_size', None, lambda x: -1 if x is None else x),
        'qkv_bias': Argument('arch.qkv_bias', False),
        'init_scale': Argument('arch.init_values', 1e-4),
        'Mlp_block': Argument('mlp_act', None, {'fused_mlp': 'gelu_tanh', None: 'gelu'}),
        'use_flash_attn': Argument(
            'window_pad', False, lambda flash: 'zero_input' if flash else 'zero_qkv'
        ),
        **ignored('use_cls_token', 'drop_rate'),
        **only(attn_drop_rate=0.0, qk_scale=None),
    },
    {'type': 'PIIPViT'},
    # A true value other than True does not switch windows on.
    is_windowed=lambda size, attn: attn is True and size > 0,
    linear_rates=False,
)

#: ``InternViT6B``: InternViT, MAE, DINOv2, AugReg.
internvit_branch = PlainClass(
    'an InternViT branch',
    {
        **_PLAIN,
        'qkv_bias': Argument('arch.qkv_bias', False),
        'init_values': Argument('arch.init_values', 0.1, lambda value: value or None),
        # Any other name means LayerNorm.
        'norm_layer_type': Argument(
            'arch.norm', 'RMSNorm', lambda name: 'RMS' if name == 'RMSNorm' else 'LN'
        ),
        'qk_normalization': Argument('arch.qk_norm', True),
        'mlp_type': Argument(
            'mlp_act', 'regular', {'regular': 'gelu', 'fused_mlp': 'gelu_tanh'}
        ),
        **ignored('use_flash_attn', 'layerscale_force_fp32'),
    },
    {'type': 'PIIPViT', 'drop_path_schedule': 'linear'},
    dict(depth=48, embed_dim=3200, num_heads=25, patch_size=14, with_cp=True),
    cls_pos_row=True,
    ignores_unknown=True,
)

#: ``BEiT``.
beit_branch = PlainClass(
    'a BEiT branch',
    {
        **_PLAIN,
        'qkv_bias': Argument('arch.qkv_bias', False),
        'init_values': Argument('arch.init_values', None),
        # It stores no positions.
        'pretrain_img_size': Argument('img_size', 224),
        # The forward pass reads neither of them: there is always one table per block.
        **ignored('use_rel_pos_bias', 'use_shared_rel_pos_bias'),
        **ignored('num_classes', 'use_checkpoint'),
        **only(use_abs_pos_emb=False, hybrid_backbone=None, norm_layer=None),
        **only(qk_scale=None, drop_rate=0.0, attn_drop_rate=0.0),
    },
    {'type': 'PIIPBEiT'},
    # A block with window_attn=False only accepts the grid of its window.
    is_windowed=lambda size, attn: True,
)

#: ``UnifiedBertEncoder``: Uni-Perceiver, whose positions are those of patches of 16.
uniperceiver_branch = PlainClass(
    'a Uni-Perceiver branch',
    {**_PLAIN, **only(patch_size=16)},
    {'type': 'PIIPUniPerceiver', 'patch_size': 16},
)

_STORED_FOR_IMAGE: Table = {
    'img_size': Argument('pretrain_img_size', 224),
    **ignored('pretrain_img_size'),
}
#: ``InternViT6B`` for segmentation.
seg_internvit_branch = replace(
    internvit_branch, table={**internvit_branch.table, **_STORED_FOR_IMAGE}
)


def _for_classification(branch: PlainClass, title: str, **defaults: Any) -> PlainClass:
    table: Table = {
        **branch.table,
        **_STORED_FOR_IMAGE,
        'use_cls_token': Argument('with_cls_token', True),
        **ignored('model_type', 'num_classes'),
    }
    return replace(
        branch,
        title=title,
        table=table,
        constants={**branch.constants, 'drop_path_schedule': 'constant'},
        defaults={**branch.defaults, **defaults},
        linear_rates=False,
        ignores_unknown=False,
    )


#: ``vit_models`` and ``InternViT6B`` for classification, by their ``model_type``.
CLASSIFIER_BRANCHES = {
    'deit': _for_classification(deit_branch, 'a DeiT branch'),
    'augreg': _for_classification(
        internvit_branch,
        'an AugReg branch',
        patch_size=16,
        init_values=None,
        qk_normalization=False,
        norm_layer_type='ln',
    ),
}


def pyramid_strides(patch_size: int) -> list[float]:
    """Strides of the published pyramid: the patch size times 1/4, 1/2, 1 and 2."""
    strides = [patch_size * ratio for ratio in (0.25, 0.5, 1, 2)]
    return strides if patch_size % 4 else [int(stride) for stride in strides]
