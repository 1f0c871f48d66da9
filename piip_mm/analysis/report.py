"""Tables of parameters and FLOPs."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table

from .heads import Heads
from .measure import Count, Parts
from .published import COLUMNS, RUN

#: What one FLOP is.
FLOP = (
    '1 FLOP = 1 multiply-add. Besides linear layers, convolutions and attention, '
    'LayerNorm, GroupNorm and BatchNorm count 2 per value, convolution biases, ReLU and '
    'pooling 1; GELU, softmax, RMSNorm, residual sums, biases of linear layers and '
    'interpolation count nothing.'
)
#: What is counted of necks and heads.
HEADS = (
    "Neck and heads: matrix products and convolutions, by PyTorch's FLOP counter; "
    'neither biases, norms and activations nor RoIAlign.'
)


def total(parts: Parts) -> Count:
    """Sum over the parts."""
    return sum(parts.values(), Count())


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
        f'each in float32, {training}, shared out by FSDP or ZeRO; activations come on '
        'top.'
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
