"""Makes torchvision and mmcv importable as they are installed, in whatever order.

``piip_mm.pth`` runs this file whenever the environment's Python starts, before anything
can import them, and ``import piip_mm`` does, too. It only installs a finder, which waits
for two modules:

- ``torchvision``: that of PyPI is built for CUDA, and its operators cannot be loaded with
  a CPU build of PyTorch. Once their schemas are defined it can be imported, and
  transforms and models work, which is all that timm and mmpretrain need.
- ``mmcv._ext``, mmcv's compiled operators. Without them (mmcv-lite), or if they were
  compiled for another PyTorch, :mod:`piip_mm.ops.mmcv_ext` takes their place.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from warnings import warn

# Importing ``typing`` would take every Python of the environment some milliseconds.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

# The package that takes the place of mmcv's compiled operators.
_REPLACEMENT = os.path.join(os.path.dirname(__file__), 'ops', 'mmcv_ext')

# Operators whose schemas torchvision looks up while it is being imported.
_TORCHVISION_OPS = {
    'nms': '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms': '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
}


class _OperatorsLoader(SourceFileLoader):
    """Loads mmcv's compiled operators, or the file that takes their place.

    Args:
        name: Name of the module.
        compiled: The compiled module, if there is one.
    """

    def __init__(self, name: str, compiled: ModuleSpec | None) -> None:
        super().__init__(name, os.path.join(_REPLACEMENT, '__init__.py'))
        self.compiled = compiled

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The compiled module, or None, for which Python makes an empty one."""
        if self.compiled is None or self.compiled.loader is None:
            return None
        try:
            return self.compiled.loader.create_module(self.compiled)
        except ImportError as error:
            warn(
                f"mmcv's compiled operators cannot be loaded ({error}): they were "
                'compiled for another PyTorch. Slower ones take their place; reinstall '
                'mmcv to have it compiled again',
                stacklevel=2,
            )
            self.compiled = None
            return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module."""
        if self.compiled is None or self.compiled.loader is None:
            super().exec_module(module)
        else:
            self.compiled.loader.exec_module(module)
            accept_any_memory_format(module)


def accept_any_memory_format(extension: ModuleType) -> None:
    """Make compiled operators copy tensors that are not contiguous, such as maps in
    channels-last order. mmcv leaves this to its callers, who do not know the order of the
    maps that they get, and most operators would read them wrongly without an error."""
    for name, function in list(vars(extension).items()):
        if type(function).__name__ == 'builtin_function_or_method':
            setattr(extension, name, _with_contiguous_tensors(function))


def _with_contiguous_tensors(function: Callable) -> Callable:
    def contiguous(value: object) -> object:
        return value.contiguous() if hasattr(value, 'contiguous') else value

    def call(*args: object, **kwargs: object) -> object:
        named = {name: contiguous(value) for name, value in kwargs.items()}
        return function(*map(contiguous, args), **named)

    return call


class StartupFinder:
    """Finds ``mmcv._ext`` and prepares PyTorch for torchvision."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """See :meth:`importlib.abc.MetaPathFinder.find_spec`."""
        if name == 'torchvision':
            _define_torchvision_ops(path)
        if name != 'mmcv._ext':
            return None
        compiled = PathFinder.find_spec(name, path)
        loader = _OperatorsLoader(name, compiled)
        origin = loader.path if compiled is None else compiled.origin
        spec = ModuleSpec(name, loader, origin=origin)
        spec.submodule_search_locations = [_REPLACEMENT]
        return spec


def _define_torchvision_ops(path: Sequence[str] | None) -> None:
    import torch

    spec = PathFinder.find_spec('torchvision', path)
    if torch.version.cuda or torch.version.hip or spec is None or spec.origin is None:
        return
    folder = os.path.dirname(spec.origin)
    try:
        for name in os.listdir(folder):
            if name.startswith('_C') and name.endswith('.so'):
                torch.ops.load_library(os.path.join(folder, name))
    except OSError:
        pass
    for name, schema in _TORCHVISION_OPS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f'torchvision::{name}', schema)


# The file may have been run before, when Python started.
if not any(type(finder).__name__ == 'StartupFinder' for finder in sys.meta_path):
    sys.meta_path.insert(0, StartupFinder())
    if 'mmcv._ext' in sys.modules:
        accept_any_memory_format(sys.modules['mmcv._ext'])
