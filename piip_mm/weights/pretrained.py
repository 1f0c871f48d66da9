"""Pretrained weights of single networks, loaded into the branches."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mmengine.logging import print_log
from torch import Tensor

from piip_mm.models.branches import Branch

from .families import Family, family_of
from .rename import rename
from .source import load_weights, unwrap_state_dict


@dataclass
class LoadReport:
    """What became of the tensors of a file and of the parameters of a branch."""

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        def listed(names: list[str]) -> str:
            shown = ', '.join(names[:6]) + (', ...' if len(names) > 6 else '')
            return f'{len(names)} ({shown})' if names else '0'

        return (
            f'{len(self.loaded)} tensors loaded, resized: {listed(self.resized)}, '
            f'dropped: {listed(self.dropped)}, missing: {listed(self.missing)}'
        )


def load_pretrained(branch: Branch, checkpoint: str) -> LoadReport:
    """Load a pretrained network of the branch's family into it.

    Heads, final norms and tokens that the branch has not are dropped. Tensors that depend
    on the size of image or patch are resized to the branch's. Layer scales that the file
    does not have keep their initial value.

    Args:
        branch: Branch to load into.
        checkpoint: Local path, URL or timm model, see
            :func:`piip_mm.weights.source.load_weights`.

    Returns:
        The report, which is logged too.

    Raises:
        FileNotFoundError: If a local file does not exist.
        ConnectionError: If a download fails.
        ValueError: If a tensor is not of the family, has another shape than the branch,
            or the file lacks one that it needs.
    """
    family = family_of(branch)
    report = LoadReport()
    weights = _converted(checkpoint, branch, family, report)
    own = branch.state_dict()
    mismatched = [
        f'{name}: {tuple(tensor.shape)} in the file, {tuple(own[name].shape)} here'
        for name, tensor in weights.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if mismatched:
        raise ValueError(
            f'{checkpoint!r} does not fit the branch; check its arch. '
            + '; '.join(mismatched[:4])
        )
    for name in [name for name in weights if name not in own]:
        # Blocks that the network does not read, and what a branch need not have.
        block = re.match(r'blocks\.(\d+)\.', name)
        is_cut = block is not None and int(block[1]) >= branch.depth
        if not is_cut and not re.fullmatch(family.optional, name):
            raise ValueError(
                f'{checkpoint!r} has {name}, which the branch has not; check its arch'
            )
        report.dropped.append(name)
        del weights[name]
    report.loaded = list(weights)
    report.missing = [name for name in own if name not in weights]
    needed = [name for name in report.missing if not re.fullmatch(family.optional, name)]
    if needed:
        raise ValueError(
            f'{checkpoint!r} lacks {len(needed)} tensors of the branch, the first of '
            f'them {needed[:4]}; check its arch'
        )
    branch.load_state_dict(weights, strict=False)
    print_log(f'{checkpoint}: {report}', logger='current')
    return report


def _converted(
    checkpoint: str, branch: Branch, family: Family, report: LoadReport
) -> dict[str, Tensor]:
    """Tensors of a file under our names and in our sizes."""
    weights = {}
    content = family.prepare(unwrap_state_dict(load_weights(checkpoint)), branch)
    for name, tensor in content.items():
        try:
            new_name = rename(name, family.rules)
        except ValueError as error:
            raise ValueError(
                f'{checkpoint!r} has {name}, which is in no file of {family.title}; give '
                'weights of the family that the branch is'
            ) from error
        if new_name is None:
            report.dropped.append(name)
            continue
        try:
            fitted = family.fit(new_name, tensor, branch)
        except ValueError as error:
            raise ValueError(f'{checkpoint!r}, {name}: {error}') from error
        if fitted is not tensor:
            shapes = f'{tuple(tensor.shape)} to {tuple(fitted.shape)}'
            report.resized.append(f'{name} {shapes}')
        weights[new_name] = fitted
    return weights
