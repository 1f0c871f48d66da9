"""Which entries of MMEngine's ``init_cfg`` load pretrained weights."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from mmengine.model import PretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS

from piip_mm.checks import check_keys
from piip_mm.config_types import resolve_type

from .source import check_location

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
