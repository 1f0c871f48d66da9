"""The timm classes that can be branches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .adapters import Adapter, EvaAdapter, PlainAdapter
from .hiera import HieraAdapter, HieraDetAdapter
from .maps import MapAdapter
from .swin import SwinAdapter


@dataclass(frozen=True)
class Supported:
    """How a timm class is run as a branch.

    Attributes:
        adapter: Builds the adapter of a model.
        examples: Name patterns of its models.
        options: Options with which timm builds the model for images of any size.
    """

    adapter: Callable[[Any], Adapter]
    examples: str
    options: Mapping[str, Any] = field(default_factory=dict)


_ANY_SIZE = {'dynamic_img_size': True}
_STAGES = partial(MapAdapter, split=False)

#: Supported timm classes by name.
ADAPTERS: dict[str, Supported] = {
    'VisionTransformer': Supported(
        PlainAdapter, 'vit_*, deit_*, deit3_*, vit_*_dinov2, vit_*_siglip_*', _ANY_SIZE
    ),
    'VisionTransformerDistilled': Supported(
        PlainAdapter, 'deit_*_distilled_*', _ANY_SIZE
    ),
    'Eva': Supported(
        EvaAdapter, 'eva_*, eva02_*, vit_*_dinov3, vit_*_rope_*, vit_pe_*', _ANY_SIZE
    ),
    'SwinTransformer': Supported(SwinAdapter, 'swin_*', {'strict_img_size': False}),
    'SwinTransformerV2': Supported(SwinAdapter, 'swinv2_*', {'strict_img_size': False}),
    'Hiera': Supported(HieraAdapter, 'hiera_*'),
    'HieraDet': Supported(HieraDetAdapter, 'sam2_hiera_*, hieradet_*'),
    # Stages that consist of a down-sampling layer and blocks.
    'ConvNeXt': Supported(
        MapAdapter, 'convnext_* (also convnext_*.dinov3_lvd1689m), convnextv2_*'
    ),
    'DaVit': Supported(MapAdapter, 'davit_*'),
    'FocalNet': Supported(partial(MapAdapter, root='layers'), 'focalnet_*'),
    'MambaOut': Supported(partial(MapAdapter, channels_last=True), 'mambaout_*'),
    'MetaNeXt': Supported(MapAdapter, 'inception_next_*'),
    # Stages that do more than run blocks one after the other.
    'ByobNet': Supported(_STAGES, 'gernet_*, mobileone_*, repvgg_*, resnet51q'),
    'CspNet': Supported(_STAGES, 'cs3darknet_*, cspdarknet53, cspresnet50'),
    'EdgeNeXt': Supported(_STAGES, 'edgenext_*'),
    'FastVit': Supported(_STAGES, 'fastvit_*'),
    'HighPerfGpuNet': Supported(_STAGES, 'hgnet_*, hgnetv2_*'),
    'MetaFormer': Supported(_STAGES, 'caformer_*, convformer_*, poolformer*'),
    'PyramidVisionTransformerV2': Supported(
        partial(_STAGES, stem=('patch_embed',)), 'pvt_v2_*'
    ),
    'VovNet': Supported(_STAGES, 'ese_vovnet*'),
}

# Why classes that one might expect are not supported.
_REASONS = {
    'Beit': 'its relative position bias only fits one grid; use PIIPBEiT',
}


def supported_class(name: str, net: Any) -> Supported:
    """Look up how a model is run.

    Args:
        name: Name of the model, for the error message.
        net: The model.

    Raises:
        ValueError: If its class is not supported.
    """
    kind = type(net).__name__
    if kind not in ADAPTERS:
        reason = _REASONS.get(
            kind, 'it is not known how to run the class block by block at any image size'
        )
        rows = ''.join(f'\n  {key}: {row.examples}' for key, row in ADAPTERS.items())
        raise ValueError(
            f'timm model {name!r} is a {kind} and cannot be a branch: {reason}. '
            f'Supported classes and names of their models:{rows}'
        )
    return ADAPTERS[kind]
