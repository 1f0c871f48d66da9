"""Final norm and classifier of a pretrained network, for the head of a branch."""

from __future__ import annotations

from mmengine.logging import print_log
from torch import nn

from piip_mm.weights.report import check_values
from piip_mm.weights.source import errors_in, load_weights
from piip_mm.weights.state_dict import select_prefix


def load_pretrained_head(
    norm: nn.Module, classifier: nn.Linear, checkpoint: str, prefix: str | None = None
) -> None:
    """Load the norm after the last block, and the classifier if its shape fits.

    Args:
        norm: Final norm of a branch.
        classifier: Linear layer of a branch.
        checkpoint: Local path, URL or timm model of a plain vision transformer, see
            :func:`piip_mm.weights.source.load_weights`.
        prefix: Beginning of the names that are loaded, see
            :func:`piip_mm.weights.state_dict.select_prefix`.

    Raises:
        FileNotFoundError: If a local file does not exist.
        ConnectionError: If a download fails.
        ValueError: If the file has no final norm, one of another width, or other values
            than finite numbers.
    """
    parts = nn.ModuleDict({'norm': norm, 'head': classifier})
    names = set(parts.state_dict())
    content = load_weights(checkpoint)
    with errors_in(checkpoint):
        tensors = select_prefix(content, prefix)
        weights = {name: tensor for name, tensor in tensors.items() if name in names}
        check_values(weights, parts)
    for name, param in parts.named_parameters():
        if name.startswith('norm.') and (
            name not in weights or weights[name].shape != param.shape
        ):
            found = tuple(weights[name].shape) if name in weights else 'no tensor'
            raise ValueError(
                f'{checkpoint!r} does not fit the head: {name} is {found} in the file, '
                f'{tuple(param.shape)} here; use the file that the branch is pretrained '
                'from, or set init_cfg=None'
            )
    shape = weights['head.weight'].shape if 'head.weight' in weights else None
    if shape == classifier.weight.shape:
        loaded = 'final norm and classifier'
    else:
        weights = {k: v for k, v in weights.items() if k.startswith('norm.')}
        classes = 'no classifier' if shape is None else f'{shape[0]} classes'
        loaded = f'final norm ({classes} in the file, {classifier.out_features} here)'
    parts.load_state_dict(weights, strict=False)
    print_log(f'{checkpoint}: {loaded} loaded', logger='current')
