"""Building blocks shared by the branches and the interactions."""

from .block import BLOCK_NORMS, MLP_ACTS, Block
from .cross_attention import (
    CROSS_ATTENTIONS,
    CrossAttention,
    DeformableCrossAttention,
    token_centres,
)
from .maps import as_map, as_output, as_tokens
from .recompute import recompute
from .self_attention import WINDOW_PADS, SelfAttention

__all__ = [
    'BLOCK_NORMS',
    'CROSS_ATTENTIONS',
    'MLP_ACTS',
    'WINDOW_PADS',
    'Block',
    'CrossAttention',
    'DeformableCrossAttention',
    'SelfAttention',
    'as_map',
    'as_output',
    'as_tokens',
    'recompute',
    'token_centres',
]
