"""Layer-wise learning-rate decay for multi-branch backbones."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from torch import nn

from piip_mm.checks import (
    check_bool,
    check_finite,
    check_keys,
    check_mapping,
    check_number,
)
from piip_mm.config_types import resolve_type

_DEFAULTS: dict[str, Any] = {
    'layer_decay_rate': 1.0,
    'decay_pos_embed': True,
    'custom_keys': {},
}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PIIPLayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rate by depth, weight decay by shape.

    The learning rate of a parameter in layer ``id`` of ``num_layers`` is ``lr *
    layer_decay_rate ** (num_layers - 1 - id)``. The backbone's ``get_layer_depth``
    defines the layers (0 is the embedding, the blocks follow); neck and heads belong to
    the last layer and have the full rate. mmpretrain's
    ``LearningRateDecayOptimWrapperConstructor`` asks the whole model for the layers,
    which detectors and segmentors cannot answer, and ignores ``lr_mult``.

    Biases and all other one-dimensional parameters (norms, layer scales) have no weight
    decay. Single numbers, the weights of the merge, and position embeddings have it, as
    in the training of the published PIIP models.

    ``paramwise_cfg`` takes

    - ``layer_decay_rate`` (float in (0, 1]): the base of the decay, 1 for none;
    - ``decay_pos_embed`` (bool): False exempts position embeddings from weight decay,
      as most ViT recipes do, other than the published training;
    - ``custom_keys`` (dict): from a substring of parameter names to ``lr_mult``, which
      multiplies the rate above, and ``decay_mult``, which replaces the rule for weight
      decay. The longest matching key applies.

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper and its ``optimizer``, which
            needs ``lr``; ``weight_decay`` is the default of the optimizer if not given.
        paramwise_cfg: See above.

    Raises:
        ValueError: If an option is unknown or out of range, or ``lr`` is not set.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        # Never empty, because the parent class would then skip add_params.
        if paramwise_cfg is not None:
            check_mapping('paramwise_cfg', paramwise_cfg)
        paramwise_cfg = {**_DEFAULTS, **(paramwise_cfg or {})}
        _check_paramwise_cfg(paramwise_cfg)
        # The optimizer would decay norms and biases, too, by its own default.
        optimizer = optim_wrapper_cfg['optimizer']
        optimizer = {**_default_decay(optimizer), **optimizer}
        super().__init__({**optim_wrapper_cfg, 'optimizer': optimizer}, paramwise_cfg)
        if self.base_lr is None:
            raise ValueError(
                'layer decay needs the learning rate in the config: set '
                'optim_wrapper.optimizer.lr'
            )

    def add_params(self, params: list[dict], module: nn.Module) -> None:
        """Group the parameters of a model by equal settings.

        Args:
            params: List that the groups are appended to, in the order of their layers.
            module: A model with a ``backbone``, or a backbone.

        Raises:
            TypeError: If the backbone does not have ``get_layer_depth``.
        """
        prefix = 'backbone.' if hasattr(module, 'backbone') else ''
        backbone: Any = getattr(module, 'backbone', module)
        if not hasattr(backbone, 'get_layer_depth'):
            raise TypeError(
                'layer decay needs a backbone with get_layer_depth, such as PIIP or '
                f'ViTPyramid; {type(backbone).__name__} has none'
            )
        first, _ = next(backbone.named_parameters())
        _, num_layers = backbone.get_layer_depth(prefix + first, prefix)
        groups: dict[tuple, dict[str, Any]] = {}
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            layer_id = num_layers - 1
            if name.startswith(prefix):
                layer_id, _ = backbone.get_layer_depth(name, prefix)
            lr_mult, decay_mult = self._multipliers(name, param)
            depth = num_layers - 1 - layer_id
            scale = lr_mult * self.paramwise_cfg['layer_decay_rate'] ** depth
            group = groups.setdefault((layer_id, scale, decay_mult), {'params': []})
            group['params'].append(param)
            group.update(lr=self.base_lr * scale, lr_scale=scale, layer_id=layer_id)
            if self.base_wd is not None:
                group['weight_decay'] = self.base_wd * decay_mult
        ordered = [groups[key] for key in sorted(groups)]
        params.extend(ordered)
        print_log(_table(ordered), logger='current')

    def _multipliers(self, name: str, param: nn.Parameter) -> tuple[float, float]:
        """Factors for the learning rate and the weight decay of a parameter."""
        is_exempt = (
            (param.ndim == 1 and param.numel() > 1)
            or name.endswith('.bias')
            or (not self.paramwise_cfg['decay_pos_embed'] and 'pos_embed' in name)
        )
        custom_keys = self.paramwise_cfg['custom_keys']
        matching = [key for key in custom_keys if key in name]
        custom = custom_keys[max(matching, key=len)] if matching else {}
        return (
            custom.get('lr_mult', 1.0),
            custom.get('decay_mult', 0.0 if is_exempt else 1.0),
        )


def _default_decay(optimizer_cfg: Mapping[str, Any]) -> dict[str, float]:
    """Weight decay that an optimizer has unless the config sets it: AdamW's is 0.01."""
    kind = resolve_type(optimizer_cfg, OPTIMIZERS)
    options = signature(kind).parameters if kind is not None else {}
    return {
        name: option.default
        for name, option in options.items()
        if name == 'weight_decay' and option.default is not Parameter.empty
    }


def _check_paramwise_cfg(paramwise_cfg: dict) -> None:
    # The backbone itself provides depths and strides.
    check_keys('paramwise_cfg', paramwise_cfg, _DEFAULTS)
    rate = paramwise_cfg['layer_decay_rate']
    check_number('layer_decay_rate', rate, above=0)
    if rate > 1:
        raise ValueError(f'layer_decay_rate={rate}: expected a number in (0, 1]')
    check_bool('decay_pos_embed', paramwise_cfg['decay_pos_embed'])
    check_mapping('custom_keys', paramwise_cfg['custom_keys'])
    for key, custom in paramwise_cfg['custom_keys'].items():
        name = f'custom_keys[{key!r}]'
        check_mapping(name, custom)
        check_keys(name, custom, ('lr_mult', 'decay_mult'))
        for field, value in custom.items():
            check_finite(f'{name}.{field}', value, minimum=0)


def _table(groups: list[dict[str, Any]]) -> str:
    lines = [
        'Learning rate by layer:\n'
        'layer  lr scale         lr weight decay  tensors  params (M)'
    ]
    for group in groups:
        decay = group.get('weight_decay', 'default')
        count = sum(param.numel() for param in group['params']) / 1e6
        lines.append(
            f'{group["layer_id"]:>5} {group["lr_scale"]:>9.3g} {group["lr"]:>10.3g} '
            f'{decay:>12} {len(group["params"]):>8} {count:>11.3f}'
        )
    return '\n'.join(lines)
