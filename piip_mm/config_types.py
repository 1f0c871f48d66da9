"""What a config means by ``type``.

MMEngine takes the name of a registered class, with or without the scope of its registry
(``'CocoDataset'``, ``'mmdet.CocoDataset'``), the place of any class
(``'mmdet.datasets.CocoDataset'``, which it writes for a class when it saves a config), or
the class itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, Registry

#: Packages whose registries a config may use without naming them.
_SCOPES = ('mmdet', 'mmseg', 'mmpretrain')


def resolve_type(
    config: Mapping[str, Any], registry: Registry, scope: str | None = None
) -> Any:
    """The class, or other callable, that MMEngine builds from a config.

    Args:
        config: Config of an object; without ``type`` nothing is built from it.
        registry: Root registry of such objects.
        scope: Default scope; None for the one that is set.

    Returns:
        The class; None if there is no ``type`` or no class of its name.
    """
    kind = config.get('type')
    if not isinstance(kind, str):
        return kind
    scope = config.get('_scope_', scope)
    with registry.switch_scope_and_registry(scope) as scoped:
        return scoped.get(kind)


def describes(config: Mapping[str, Any], registry: Registry, base: type) -> bool:
    """Whether MMEngine builds an instance of a class, or of a derived one, from a config,
    see :func:`resolve_type`."""
    kind = resolve_type(config, registry)
    return isinstance(kind, type) and issubclass(kind, base)


def base_names(kind: Any, package: str) -> set[str]:
    """Names of a class and its bases, of those that a package defines."""
    return {
        base.__name__
        for base in getattr(kind, '__mro__', ())
        if base.__module__.partition('.')[0] == package
    }


def default_scope(cfg: Config) -> str:
    """Scope of the names in a config.

    A config made of classes needs none, so that ``default_scope`` may be None or not set;
    it is then the package that the class of the model comes from.
    """
    scope = cfg.get('default_scope')
    if scope is not None:
        return scope
    model = resolve_type(cfg.get('model') or {}, MODELS)
    return next((name for name in _SCOPES if base_names(model, name)), 'mmengine')
