"""Training and testing beyond MMEngine: layer decay, data checks, the tools' parts."""

from .checkpoint_hook import PublishedCheckpointHook
from .class_check import CheckLabelMap, check_classes
from .custom_data import expand_custom_data
from .data_check import check_data, find_missing
from .layer_decay import PIIPLayerDecayOptimWrapperConstructor
from .picture_hook import PictureHook

__all__ = [
    'CheckLabelMap',
    'PIIPLayerDecayOptimWrapperConstructor',
    'PictureHook',
    'PublishedCheckpointHook',
    'check_classes',
    'check_data',
    'expand_custom_data',
    'find_missing',
]
