"""Analysis of models: parameters and FLOPs by part."""

from .heads import count_heads
from .measure import Count, Parts, build_on_meta, configured_shape, total
from .published import PUBLISHED, RELEASED, RUN, count_backbone, count_classifier

__all__ = [
    'PUBLISHED',
    'RELEASED',
    'RUN',
    'Count',
    'Parts',
    'build_on_meta',
    'configured_shape',
    'count_backbone',
    'count_classifier',
    'count_heads',
    'total',
]
