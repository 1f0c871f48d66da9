"""Analysis of models: parameters and FLOPs by part."""

from .backbones import Parts, build_on_meta, configured_shape, count_backbone
from .conventions import CONVENTIONS, FLOP, PUBLISHED, RELEASED, RUN, Convention, Count
from .heads import HEADS, Heads, count_heads
from .report import backbone_table, column_notes, heads_table, memory_note, total

__all__ = [
    'CONVENTIONS',
    'FLOP',
    'HEADS',
    'PUBLISHED',
    'RELEASED',
    'RUN',
    'Convention',
    'Count',
    'Heads',
    'Parts',
    'backbone_table',
    'build_on_meta',
    'column_notes',
    'configured_shape',
    'count_backbone',
    'count_heads',
    'heads_table',
    'memory_note',
    'total',
]
