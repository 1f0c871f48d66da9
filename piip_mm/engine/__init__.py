"""Additions to MMEngine: layer-wise decay, checks before a run, parts of the tools."""

from . import host_models  # noqa: F401
from .checkpoint_hook import PublishedCheckpointHook
from .class_check import check_classes
from .coco_check import check_coco
from .custom_data import expand_custom_data
from .data_check import check_data, find_missing
from .draw_hook import DrawPredictionsHook
from .layer_decay import PIIPLayerDecayOptimWrapperConstructor

__all__ = [
    'DrawPredictionsHook',
    'PIIPLayerDecayOptimWrapperConstructor',
    'PublishedCheckpointHook',
    'check_classes',
    'check_coco',
    'check_data',
    'expand_custom_data',
    'find_missing',
]
