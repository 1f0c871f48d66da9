"""Tables of parameters and FLOPs."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table

from .backbones import Parts
from .conventions import CONVENTIONS, RUN, Count
from .heads import Heads


def total(parts: Parts) -> Count:
    """Sum over the parts."""
    return sum(parts.values(), Count())


def backbone_table(columns: Mapping[str, Parts]) -> Table:
    """Parts of a backbone, one pair of columns a convention.

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
    table = _table('neck and heads', RUN.name)
    table.add_column('remark')
    for name, (count, remark) in heads.items():
        table.add_row(name, *_cells(count), remark)
    return table


def column_notes() -> list[str]:
    """What each column means, one line each."""
    return [f'{convention.name}: {convention.meaning}.' for convention in CONVENTIONS]


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
