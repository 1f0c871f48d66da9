"""Prints parameters and FLOPs of a config by part; needs no weights and no GPU."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from piip_mm import analysis
from piip_mm.analysis import RUN, Count, Parts, total
from piip_mm.analysis.heads import Heads
from piip_mm.analysis.memory import kept_for_backward
from piip_mm.analysis.published import COLUMNS
from piip_mm.analysis.subject import BackboneAndNeck, network_parts
from piip_mm.deploy import fuse
from piip_mm.engine.launch import (
    add_cfg_options,
    add_shape,
    read_config,
    user_errors,
)

#: What one FLOP is.
FLOP_NOTE = (
    '1 FLOP = 1 multiply-add. Besides linear layers, convolutions and attention, '
    'LayerNorm, GroupNorm and BatchNorm count 2 per value, convolution biases, ReLU and '
    'pooling 1; GELU, softmax, RMSNorm, residual sums, biases of linear layers and '
    'interpolation count nothing.'
)
#: What is counted of necks and heads.
HEADS_NOTE = (
    "Neck and heads: matrix products and convolutions, by PyTorch's FLOP counter; "
    'neither biases, norms and activations nor RoIAlign.'
)
#: What the table of a fused model contains.
FUSED = 'fused'
FUSED_NOTE = (
    f'{FUSED}: as run, after piip_mm.deploy.fuse (test.py --fuse). The pyramid then '
    'upsamples directly to the width of the neck or decode head, whose 1x1 convolutions '
    'on these levels it includes. Only parts that change are listed; the total is of '
    'all that is counted above.'
)

#: What the activations are.
KEPT_NOTE = (
    'Kept for the backward pass: activations of backbone and neck in float32, for one '
    "image in training, with PyTorch's deformable attention. with_cp=True of branches "
    'and interaction recomputes theirs instead.'
)


def parse_args() -> argparse.Namespace:
    """Arguments of mmdetection's tools/analysis_tools/get_flops.py, where they apply."""
    parser = argparse.ArgumentParser(
        description='Parameters and FLOPs of a config by part',
        epilog=f'{FLOP_NOTE} Columns: {" ".join(column_notes())}',
    )
    parser.add_argument('config', help='config file')
    add_shape(parser, 'img_size of the (first) branch; for "as run" and the heads')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Count and print."""
    args = parse_args()
    # Only warnings: the tables are what is to be read.
    MMLogger.get_instance('get_flops', log_level='WARNING')
    with user_errors():
        cfg = read_config(args.config, args.cfg_options)
        init_default_scope(cfg.default_scope)
        if 'backbone' not in cfg.get('model', {}):
            raise ValueError(f'{args.config} has no model.backbone to count')
        model = analysis.build_on_meta(cfg.model)
        shape = analysis.configured_shape(model.backbone)
        if args.shape is not None:
            shape = args.shape
        columns, heads = count(model, shape)
        kept = kept_activations(model, shape)
        num_params = sum(p.numel() for p in model.parameters())
        fused_columns, fused_heads = count(fuse(model.to('meta')), shape)

    # Wide enough for the tables where the output goes into a file or a pipe.
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(f'{args.config}, input {shape[0]} x {shape[1]} (H x W)')
    console.print(backbone_table(columns))
    notes = [FLOP_NOTE, *column_notes()]
    if heads:
        console.print(heads_table(heads))
        notes.append(HEADS_NOTE)
    console.print(
        fused_table(
            all_parts(columns[RUN], heads), all_parts(fused_columns[RUN], fused_heads)
        )
    )
    console.print(kept_table(kept))
    notes += [FUSED_NOTE, KEPT_NOTE]
    for line in (memory_note(num_params), *notes):
        console.print(line)


def count(model: nn.Module, shape: tuple[int, int]) -> tuple[dict[str, Parts], Heads]:
    """Columns of the backbone, or of a whole classifier, and the neck and heads of a
    detector or segmentor."""
    if hasattr(model, 'head'):
        return analysis.count_classifier(model, shape), {}
    columns = analysis.count_backbone(model.get_submodule('backbone'), shape)
    return columns, analysis.count_heads(model, shape)


def kept_activations(model: nn.Module, shape: tuple[int, int]) -> dict[str, int]:
    """Bytes by part that a training step on one image keeps for the backward pass."""
    backbone: Any = model.get_submodule('backbone')
    network = BackboneAndNeck(backbone, getattr(model, 'neck', None)).train()
    channels = backbone.branch_list[0].in_channels
    image = torch.empty(1, channels, *shape, device='meta')
    parts = network_parts(network)
    kept = kept_for_backward(partial(network, image), network, parts, 'other')
    network.eval()
    return kept


def all_parts(backbone: Parts, heads: Heads) -> Parts:
    """Parts of a whole model, as run."""
    return backbone | {name: part for name, (part, _) in heads.items()}


def backbone_table(columns: Mapping[str, Parts]) -> Table:
    """Parts of a backbone, with a pair of columns for each way to count it.

    Args:
        columns: From :func:`piip_mm.analysis.count_backbone`.
    """
    table = _table('backbone', *columns)
    names = dict.fromkeys(name for parts in columns.values() for name in parts)
    for name in names:
        counts = [parts.get(name) for parts in columns.values()]
        table.add_row(name, *(cell for count in counts for cell in _cells(count)))
    table.add_section()
    counts = [total(parts) for parts in columns.values()]
    table.add_row('total', *(cell for count in counts for cell in _cells(count)))
    return table


def heads_table(heads: Heads) -> Table:
    """Neck and heads.

    Args:
        heads: From :func:`piip_mm.analysis.count_heads`.
    """
    table = _table('neck and heads', RUN)
    table.add_column('remark')
    for name, (count, remark) in heads.items():
        table.add_row(name, *_cells(count), remark)
    return table


def fused_table(run: Parts, fused: Parts) -> Table:
    """Parts that differ between a model and the fused model, and the sum of all.

    Args:
        run: Parts of the model, from :func:`all_parts`.
        fused: Parts of the fused model.
    """
    table = _table(FUSED, RUN, FUSED)
    for name, part in run.items():
        if part != fused[name]:
            table.add_row(name, *_cells(part), *_cells(fused[name]))
    table.add_section()
    table.add_row('total', *_cells(total(run)), *_cells(total(fused)))
    return table


def kept_table(kept: Mapping[str, int]) -> Table:
    """Activations by part, from :func:`kept_activations`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column('kept for the backward pass', no_wrap=True)
    table.add_column('MiB', justify='right')
    for name, num_bytes in kept.items():
        table.add_row(name, f'{num_bytes / 2**20:,.0f}')
    table.add_section()
    table.add_row('total', f'{sum(kept.values()) / 2**20:,.0f}')
    return table


def column_notes() -> list[str]:
    """What each column means, one line each."""
    return [f'{column}: {meaning}.' for column, meaning in COLUMNS.items()]


def memory_note(num_params: int) -> str:
    """What a model's parameters need in memory, in words."""
    full, half, training = (
        f'{num_params * size / 2**30:,.1f} GiB' for size in (4, 2, 16)
    )
    return (
        f'Memory of {num_params:,} parameters: {full} in float32, {half} in bfloat16 or '
        'float16. Training them with AdamW keeps weight, gradient and two moments of '
        f'each in float32, {training}, sharded by FSDP or ZeRO; activations, see '
        'above, come on top.'
    )


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in columns:
        for unit in ('parameters', 'GFLOPs'):
            table.add_column(f'{name}\n{unit}', justify='right', no_wrap=True)
    return table


def _cells(count: Count | None) -> tuple[str, str]:
    if count is None:
        return '-', '-'
    return f'{count.params:,}', f'{count.flops / 1e9:,.3f}'


if __name__ == '__main__':
    main()
