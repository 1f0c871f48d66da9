"""Pretrained networks: the entries of ``init_cfg`` that name them, and their loading."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol

from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor

from piip_mm.checks import check_keys
from piip_mm.config_types import resolve_type

from .rename import Rule, rename_state_dict
from .report import LoadReport, check_values, compare
from .source import check_location, errors_in, load_weights
from .state_dict import select_prefix

_KEYS = ('type', 'checkpoint', 'prefix', 'map_location')


def is_pretrained(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of an ``init_cfg`` loads pretrained weights."""
    return resolve_type(entry, WEIGHT_INITIALIZERS) is PretrainedInit


def pretrained_entries(init_cfg: Any) -> list[MutableMapping[str, Any]]:
    """Entries of the ``init_cfg`` of a module that loads pretrained weights itself.

    Returns:
        The entries; an empty list if MMEngine is to initialise the module.

    Raises:
        ValueError: If an entry is no dict, its type is unknown, it has no checkpoint or
            unknown keys, or some entries load weights and others do not.
    """
    entries = [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg or []
    if not isinstance(entries, (list, tuple)) or not all(
        isinstance(entry, Mapping) for entry in entries
    ):
        raise ValueError(
            f"init_cfg={init_cfg!r}: expected a dict such as dict(type='Pretrained', "
            'checkpoint=...), a list of such dicts, or None'
        )
    for entry in entries:
        if resolve_type(entry, WEIGHT_INITIALIZERS) is None:
            raise ValueError(
                f'unknown type {entry.get("type")!r} of init_cfg {dict(entry)}; choose '
                f'one of {", ".join(sorted(WEIGHT_INITIALIZERS.module_dict))}'
            )
    pretrained = [entry for entry in entries if is_pretrained(entry)]
    if pretrained and len(pretrained) < len(entries):
        raise ValueError(
            f'init_cfg {init_cfg} has other entries next to the pretrained weights, '
            'which set all values; keep only the pretrained weights'
        )
    for entry in pretrained:
        # MMEngine adds _scope_ to what is inherited from a config of another package.
        check_keys('init_cfg', set(entry) - {'_scope_'}, _KEYS)
        check_location('init_cfg.checkpoint', entry.get('checkpoint'))
        prefix = entry.get('prefix')
        if prefix is not None and not (isinstance(prefix, str) and prefix.strip('.')):
            raise ValueError(
                f'init_cfg has prefix={prefix!r}: expected the beginning of the names '
                "that are loaded, such as 'backbone.branches.0.'"
            )
    return pretrained


class PretrainedTarget(Protocol):
    """The part of the interface of ``Branch`` that loading weights needs."""

    weights_title: str
    optional_weights: str

    def weight_rules(self) -> Sequence[Rule]: ...
    def without_removed_blocks(self, rules: Sequence[Rule]) -> Sequence[Rule]: ...
    def prepare_weights(self, weights: Mapping[str, Any]) -> Mapping[str, Any]: ...
    def fit_weight(self, name: str, tensor: Tensor) -> Tensor: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool) -> Any: ...


def load_pretrained(
    branch: PretrainedTarget, checkpoint: str, prefix: str | None = None
) -> LoadReport:
    """Load a pretrained network of the branch's family into the branch.

    Heads, final norms and tokens that the branch does not have are dropped. Tensors that
    depend on the image or patch size are resized to the branch's. Layer scales that the
    file does not have keep their initial value.

    A branch of a trained model is loaded, too: from a checkpoint of this package with the
    prefix ``'backbone.branches.0.'``, or from a published one with its name there.

    Args:
        branch: Branch to load into.
        checkpoint: Local path, URL or timm model, see
            :func:`piip_mm.weights.source.load_weights`.
        prefix: Beginning of the names that are loaded, see
            :func:`piip_mm.weights.state_dict.select_prefix`.

    Returns:
        The report, which is also logged.

    Raises:
        FileNotFoundError: If a local file does not exist.
        ConnectionError: If a download fails.
        ValueError: If a tensor does not belong to the family, has another shape than the
            branch's or other values than finite numbers, or if the file lacks a tensor
            that the branch needs.
    """
    weights, dropped, resized = _converted(checkpoint, prefix, branch)
    report = compare(weights, branch, dropped)
    report.resized = resized
    if report.mismatched:
        raise ValueError(
            f'{checkpoint} does not fit the branch; check its arch and the channels of '
            'its image. ' + '; '.join(report.mismatched[:4])
        )
    if report.left_over:
        raise ValueError(
            f'{checkpoint} has {report.left_over[0]}, which the branch does not have; '
            'check its arch'
        )
    required = [
        name for name in report.missing if not re.fullmatch(branch.optional_weights, name)
    ]
    if required:
        raise ValueError(
            f'{checkpoint} lacks {len(required)} tensors of the branch, the first of '
            f'them {required[:4]}; check its arch'
        )
    branch.load_state_dict(weights, strict=False)
    print_log(f'{checkpoint}: {report.summary()}', logger='current')
    return report


def _converted(
    checkpoint: str, prefix: str | None, branch: PretrainedTarget
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Tensors of a file under the names and in the sizes of the branch; the names in the
    file that were dropped; and those that were resized, with their shapes."""
    content = load_weights(checkpoint)
    with errors_in(checkpoint):
        tensors: Mapping[str, Tensor] = select_prefix(content, prefix)
        rules: Sequence[Rule] = [(r'.+', r'\g<0>')]
        if not _is_own(tensors, branch):
            tensors, rules = branch.prepare_weights(tensors), branch.weight_rules()
        rules = branch.without_removed_blocks(rules)
        weights, dropped = rename_state_dict(tensors, rules, branch.weights_title)
        check_values(weights, branch)
    fitted, resized = {}, []
    for name, tensor in weights.items():
        with errors_in(f'{checkpoint}, {name}'):
            fitted[name] = branch.fit_weight(name, tensor)
        if fitted[name] is not tensor:
            shapes = f'{tuple(tensor.shape)} to {tuple(fitted[name].shape)}'
            resized.append(f'{name} {shapes}')
    return fitted, dropped, resized


def _is_own(names: Iterable[str], branch: PretrainedTarget) -> bool:
    """Whether names are those of a branch of the same class, whose depth may differ."""
    own = {re.sub(r'^blocks\.\d+\.', 'blocks.', name) for name in branch.state_dict()}
    return all(re.sub(r'^blocks\.\d+\.', 'blocks.', name) in own for name in names)
