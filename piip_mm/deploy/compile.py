"""``torch.compile`` for the parts of a model that see whole images."""

from __future__ import annotations

import os
from itertools import chain
from shutil import which
from typing import Any

import torch
from mmengine.device import get_device
from torch import nn

from piip_mm.models.backbone import Backbone
from piip_mm.models.interaction import Injector
from piip_mm.models.merging import BranchMerge
from piip_mm.models.pyramid import Pyramid

from .fuse import find_backbone

#: Modes of ``torch.compile``.
COMPILE_MODES = ('default', 'reduce-overhead', 'max-autotune')

# Blocks of different widths count as recompilations of one function, of which PyTorch
# allows eight by default, and then stops with an error.
_RECOMPILATIONS = 128


def compile_model(model: nn.Module, mode: str = 'default') -> None:
    """Compile backbone and neck, in place.

    The code is made in the first step. Blocks, injectors, merges and pyramid are compiled
    on their own, because parts of one shape share their code: compiling the whole
    backbone as one graph takes several times as long for the same speed. Only
    'reduce-overhead' takes the whole backbone, because it records a CUDA graph, for
    which shared code would not help: the parameters of every part have places of their
    own in memory. State dicts stay as they are.

    Args:
        model: Model with a ``PIIP`` or ``ViTPyramid`` as its ``backbone``, or one of
            them.
        mode: One of :data:`COMPILE_MODES`.

    Raises:
        FileNotFoundError: If the code for the CPU would need a C++ compiler and there is
            none.
        ValueError: If the model has no such backbone.
    """
    backbone = find_backbone(model)
    compilers = [os.environ.get('CXX', 'g++'), 'clang++']
    if get_device() == 'cpu' and not any(map(which, compilers)):
        raise FileNotFoundError(
            f'compiling a model for the CPU needs a C++ compiler, and there is none of '
            f'{compilers}; install one (Debian, Ubuntu: apt install g++), or run without '
            'compiling'
        )
    # Also called recompile_limit since PyTorch 2.7.
    limit = torch._dynamo.config
    limit.cache_size_limit = max(limit.cache_size_limit, _RECOMPILATIONS)
    for part in [backbone] if mode == 'reduce-overhead' else _parts(backbone):
        part.compile(fullgraph=True, mode=mode)
    neck = getattr(model, 'neck', None)
    if neck is not None:
        # Whatever the neck is: where it cannot be compiled, it runs as it is.
        neck.compile(mode=mode)


def _parts(backbone: Backbone) -> list[Any]:
    """Blocks of all branches, injectors, merges and pyramid."""
    parts: list[Any] = [
        module
        for branch in backbone.branch_list
        for module in chain(*branch.block_modules())
    ]
    kinds = (Injector, BranchMerge, Pyramid)
    parts += [module for module in backbone.modules() if isinstance(module, kinds)]
    # PyTorch 2.6 compiles no pyramid of identities, but what it calls.
    return [part for part in parts if any(True for _ in part.parameters())]
