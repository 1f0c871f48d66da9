"""Weights of the original AugReg release (arXiv 2106.10270): arrays saved from JAX."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .rename import Rule, rename

_BLOCK = r'Transformer/encoderblock_(\d+)/'
_LEAF = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}
_RULES: list[Rule] = [
    (r'cls', 'cls_token'),
    (r'Transformer/posembed_input/pos_embedding', 'pos_embed'),
    (r'embedding/(\w+)', r'patch_embed.proj.\1'),
    (_BLOCK + r'LayerNorm_0/(\w+)', r'blocks.\1.norm1.\2'),
    (_BLOCK + r'LayerNorm_2/(\w+)', r'blocks.\1.norm2.\2'),
    (_BLOCK + r'MlpBlock_3/Dense_0/(\w+)', r'blocks.\1.mlp.fc1.\2'),
    (_BLOCK + r'MlpBlock_3/Dense_1/(\w+)', r'blocks.\1.mlp.fc2.\2'),
    (_BLOCK + r'MultiHeadDotProductAttention_1/out/(\w+)', r'blocks.\1.attn.proj.\2'),
    (_BLOCK + r'MultiHeadDotProductAttention_1/(\w+)/(\w+)', r'blocks.\1.attn.\2.\3'),
    (r'Transformer/encoder_norm/(\w+)', r'norm.\1'),
    # The layer before the head, which only ImageNet-21k models have.
    (r'pre_logits/\w+', None),
    (r'head/(\w+)', r'head.\1'),
]


def from_jax(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Convert arrays of the JAX release to the names and layouts of timm.

    Args:
        arrays: Content of the ``.npz`` file.

    Raises:
        ValueError: If a name does not belong to a vision transformer.
    """
    weights: dict[str, Tensor] = {}
    for name, array in arrays.items():
        new_name = rename(name.removeprefix('opt/target/'), _RULES)
        if new_name is None:
            continue
        path, _, leaf = new_name.rpartition('.')
        tensor = torch.from_numpy(np.asarray(array, dtype=np.float32))
        if leaf == 'kernel':
            tensor = _kernel(path, tensor)
        elif re.search(r'\.(query|key|value)$', path):
            # (M, D) for M heads.
            tensor = tensor.flatten()
        weights[f'{path}.{_LEAF[leaf]}' if leaf in _LEAF else new_name] = tensor
    for name in [name for name in weights if '.attn.query.' in name]:
        parts = [name.replace('query', part) for part in ('query', 'key', 'value')]
        weights[name.replace('query', 'qkv')] = torch.cat(
            [weights.pop(part) for part in parts]
        )
    return weights


def _kernel(path: str, kernel: Tensor) -> Tensor:
    """Weight of a layer; in JAX the output channels are the last dimension."""
    if path == 'patch_embed.proj':
        return kernel.permute(3, 2, 0, 1)
    if path.endswith('attn.proj'):
        # (M, D, C) for M heads.
        return kernel.flatten(0, 1).T
    # (C, M, D) for query, key and value.
    return kernel.flatten(1).T
