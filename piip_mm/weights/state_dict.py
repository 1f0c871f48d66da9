"""State dicts: taking them out of files, selecting parts, translating them in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from piip_mm.checks import shown

from .rename import rename_state_dict

#: What to do about a file that holds more than a state dict.
STATE_DICT_ALONE = 'save the state dict alone, torch.save(model.state_dict(), FILE)'

# Containers in which training scripts wrap the weights.
_WRAPPERS = ('model', 'module', 'state_dict')


def unwrap_state_dict(content: Any) -> dict[str, Tensor]:
    """Tensors by name from a file of MMEngine or MMCV ('state_dict'), DeepSpeed
    ('module'), DeiT ('model') or without such a key; removes the prefix 'module.' of
    distributed training.

    Raises:
        ValueError: If the file holds anything else than names and dense tensors, or a
            name with and without the prefix.
    """
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    is_mapping = isinstance(content, Mapping)
    if not is_mapping or not any(isinstance(x, Tensor) for x in content.values()):
        found = f'the keys {list(content)[:8]}' if is_mapping else type(content).__name__
        raise ValueError(
            'the file holds no weights: expected names and tensors, bare or under one '
            f'of the keys {", ".join(_WRAPPERS)}, found {found}'
        )
    for name, value in content.items():
        is_tensor = isinstance(value, Tensor)
        if is_tensor and (value.layout is not torch.strided or value.is_nested):
            found = 'nested' if value.is_nested else f'of layout {value.layout}'
            raise ValueError(
                f'tensor {name!r} is {found}; expected a dense one: save its to_dense()'
            )
        if not isinstance(name, str) or not is_tensor:
            raise ValueError(
                f'entry {name!r} of type {type(value).__name__}: expected names and '
                f'tensors only; {STATE_DICT_ALONE}'
            )
    renamed, _ = rename_state_dict(content, [(r'module\.(.+)', r'\1')])
    return renamed


def select_prefix(state_dict: dict[str, Any], prefix: str | None) -> dict[str, Any]:
    """Tensors of a file whose names begin with a prefix, under the rest of their names.

    Args:
        state_dict: All tensors of the file.
        prefix: The dot at its end may be left out; None selects everything.

    Raises:
        ValueError: If no name has the prefix; lists those that there are.
    """
    if prefix is None:
        return state_dict
    prefix = prefix.removesuffix('.') + '.'
    selected = names_under(prefix, state_dict)
    if not selected:
        raise ValueError(
            f'the file has no names that begin with {prefix!r}; there are '
            f'{", ".join(map(repr, _prefixes_near(prefix, state_dict)))}'
        )
    return selected


def _prefixes_near(prefix: str, names: Iterable[str]) -> list[str]:
    """Prefixes of names that begin with as many parts of ``prefix`` as possible, and have
    one part more."""
    parts = prefix.split('.')
    for number in range(len(parts), -1, -1):
        start = ''.join(f'{part}.' for part in parts[:number])
        rest = [name.removeprefix(start) for name in names if name.startswith(start)]
        if rest:
            break
    return sorted({start + ''.join(name.partition('.')[:2]) for name in rest})


def names_under(prefix: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a state dict whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }


def translate_in_place(
    module: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    is_foreign: Callable[[Mapping[str, Tensor]], bool],
    translate: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
) -> None:
    """Prepare a state dict that is about to be loaded; for state-dict pre-hooks.

    Args:
        module: Module that loads it.
        state_dict: Names to tensors; or the content of a file that wraps them, as
            DeepSpeed's do, of which MMEngine's ``load_checkpoint`` would load nothing.
        prefix: Prefix of the module's names; if there is one, then the file is that of a
            model around it, and may lack the module.
        is_foreign: Whether names, without prefix, are those of other code.
        translate: Translates the tensors of such names.

    Raises:
        ValueError: If there are no weights, or none of the module, of which MMEngine only
            warns.
    """
    if not prefix and any(isinstance(value, Mapping) for value in state_dict.values()):
        _replace(state_dict, unwrap_state_dict(dict(state_dict)))
    tensors = names_under(prefix, state_dict)
    if is_foreign(tensors):
        others = {n: x for n, x in state_dict.items() if not n.startswith(prefix)}
        own = {prefix + name: x for name, x in translate(tensors).items()}
        _replace(state_dict, others | own)
    elif tensors and not prefix and tensors.keys().isdisjoint(own := module.state_dict()):
        raise ValueError(
            f'none of the {len(tensors)} names in the file ({shown(tensors, 3)}) is one '
            f'of the {type(module).__name__} ({shown(own, 3)}): it is the file of '
            'another model, or of a part of one or more than one. init_cfg takes the '
            'prefix of the part to load; names of a published network with a single '
            'branch are translated by piip_mm.published.migrate_state_dict'
        )


def _replace(state_dict: dict[str, Any], content: Mapping[str, Any]) -> None:
    state_dict.clear()
    state_dict.update(content)
