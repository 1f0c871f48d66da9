"""What became of the tensors of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from piip_mm.checks import shown

# In DINO: takes the encoded reference points, 2 C wide in mmdet and 4 C in its fork.
_REF_POINT_HEAD = 'decoder.ref_point_head.layers.0.weight'
_FORKED_DINO = (
    '; the DINO of onedl-mmdetection encodes reference points at twice the width of '
    "mmdet's: load the file with the package that it was made for (mmdet 3.3.0 for "
    'published checkpoints)'
)

# Types that are copied into each other without changing what the numbers mean; values of
# any other type are scaled, or are not numbers of one part.
_KINDS = {
    **dict.fromkeys(
        (torch.float16, torch.bfloat16, torch.float32, torch.float64), 'floating point'
    ),
    **dict.fromkeys(
        (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64), 'integer'
    ),
    torch.bool: 'bool',
}


@dataclass
class LoadReport:
    """What became of the tensors of a file and of the parameters of a model.

    Attributes:
        loaded: Names in both, of equal shape.
        resized: Names in the file, and their shapes before and after.
        dropped: Names in the file that nothing reads.
        missing: Names of parameters that the file does not have.
        left_over: Names in the file that the model does not have.
        mismatched: Names in both, and their different shapes.
    """

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    @property
    def misfits(self) -> list[str]:
        """Parameters without a tensor, and tensors without a parameter."""
        return [*self.missing, *self.left_over, *self.mismatched]

    def summary(self) -> str:
        """One line with the numbers and the first names."""
        parts = [f'{len(self.loaded)} tensors loaded']
        for title, names in self._unusual().items():
            parts.append(f'{title}: {len(names)} ({shown(names, 6)})')
        return ', '.join(parts)

    def __str__(self) -> str:
        lines = [f'{len(self.loaded)} tensors fit the model']
        for title, names in self._unusual().items():
            lines += [f'{len(names)} {title}:', *(f'  {name}' for name in names[:20])]
            if len(names) > 20:
                lines.append(f'  ... and {len(names) - 20} more')
        return '\n'.join(lines)

    def _unusual(self) -> dict[str, list[str]]:
        """Names by what became of them, apart from those that were simply loaded."""
        titles = ('resized', 'missing', 'left over', 'mismatched', 'dropped')
        named = {title: getattr(self, title.replace(' ', '_')) for title in titles}
        return {title: names for title, names in named.items() if names}


def compare(
    state_dict: Mapping[str, Tensor], model: Any, dropped: Sequence[str] = ()
) -> LoadReport:
    """Compare the names and shapes of a state dict with those of a model; a scalar and a
    vector of one number fit each other.

    Args:
        state_dict: Names to tensors.
        model: Module to load into.
        dropped: For the report, see :class:`LoadReport`.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in state_dict]
    report = LoadReport(missing=missing, dropped=list(dropped))
    for name, tensor in state_dict.items():
        if name not in expected:
            report.left_over.append(name)
            continue
        here, there = tuple(expected[name].shape), tuple(tensor.shape)
        if here != there and {here, there} != {(1,), ()}:
            reason = _FORKED_DINO if name == _REF_POINT_HEAD else ''
            report.mismatched.append(f'{name}: {there} in the file, {here} here{reason}')
        else:
            report.loaded.append(name)
    return report


def check_values(state_dict: Mapping[str, Tensor], model: Any) -> None:
    """Raise ``ValueError`` unless the tensors that a model would load hold numbers of the
    kind that it has (of any precision), all of them finite.

    PyTorch copies any number into a parameter: of integers, float weights become 0.
    """
    faults = []
    # Not from state_dict(), for which FSDP would gather the parameters of all processes.
    parts = (model.named_parameters, model.named_buffers)
    for name, here in chain(*(part(remove_duplicate=False) for part in parts)):
        if (tensor := state_dict.get(name)) is None:
            continue
        kind = _KINDS.get(tensor.dtype)
        if tensor.is_meta > here.is_meta:
            faults.append(f'{name} is on the meta device, without values')
        elif kind is None or kind != _KINDS.get(here.dtype):
            faults.append(f'{name} is {tensor.dtype} in the file, {here.dtype} here')
        elif kind == 'floating point' and (count := _count_infinite(tensor, here.dtype)):
            faults.append(
                f'{name} has {count} of {tensor.numel()} values NaN or infinite in '
                f'{here.dtype}'
            )
    if faults:
        raise ValueError(
            f'{len(faults)} tensors cannot be loaded: '
            + '; '.join(faults[:4])
            + '; expected finite numbers of the same kind (NaN comes from a training '
            'that diverged, other types from quantisation, which has to be undone first)'
        )


def _count_infinite(tensor: Tensor, dtype: torch.dtype) -> int:
    """Number of values that are NaN or infinite, or become so in a type of less range."""
    if tensor.is_meta or not tensor.numel():
        return 0
    # Ten times as fast as looking at every value; NaN is both minimum and maximum.
    if all(bound.to(dtype).isfinite() for bound in tensor.aminmax()):
        return 0
    return int((~tensor.to(dtype).isfinite()).sum())
