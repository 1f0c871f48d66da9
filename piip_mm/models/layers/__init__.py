"""Building blocks shared by the branches and the interactions."""

from .block import Block
from .cross_attention import CROSS_ATTENTIONS, CrossAttention, DeformableCrossAttention
from .self_attention import WINDOW_PADS, SelfAttention

__all__ = [
    'CROSS_ATTENTIONS',
    'WINDOW_PADS',
    'Block',
    'CrossAttention',
    'DeformableCrossAttention',
    'SelfAttention',
]
