"""Training and testing beyond MMEngine: layer decay, data checks, the tools' parts."""

from .checkpoint_hook import PublishedCheckpointHook
from .custom_data import expand_custom_data
from .data_check import check_data, find_missing
from .layer_decay import PIIPLayerDecayOptimWrapperConstructor

__all__ = [
    'PIIPLayerDecayOptimWrapperConstructor',
    'PublishedCheckpointHook',
    'check_data',
    'expand_custom_data',
    'find_missing',
]
