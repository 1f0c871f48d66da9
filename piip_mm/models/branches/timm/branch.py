"""A timm model as a branch: module and weights."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import timm
import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from timm.models._manipulate import reinit_non_persistent_buffers
from torch import Tensor, nn

from piip_mm.checks import check_int, check_mapping, check_rate
from piip_mm.weights.rename import Rule
from piip_mm.weights.source import check_timm_model

from ..base import Branch
from .adapters import Adapter
from .table import supported_class

# Options that the branch sets itself, that concern the head, or that would drop patches.
_RESERVED = (
    *('num_classes', 'global_pool', 'drop_rate', 'drop_path_rate', 'patch_drop_rate'),
    *('features_only', 'out_indices', 'dynamic_img_pad', 'device', 'cache_dir'),
    *('pretrained', 'pretrained_cfg', 'pretrained_cfg_overlay', 'checkpoint_path'),
)

# Heads and final norms in files for a task other than that of timm's model.
_AFTER_THE_BLOCKS = r'(?:head|head_dist|norm|fc_norm|norm_pre|attn_pool|classifier)\..+'


@MODELS.register_module()
class PIIPTimm(Branch):
    """A timm model (https://github.com/huggingface/pytorch-image-models), by its name.

    The model runs without its final norm and head, block by block, at any image size. The
    supported classes are listed in ``ADAPTERS`` (``table.py``). Class, distillation and
    register tokens are prefix tokens. Blocks are numbered through all stages, as in timm;
    a down-sampling layer between stages belongs to the block after it. If the stages of a
    class cannot be split, every stage is one block.

    Args:
        model: Name of a timm model, with or without the tag of its weights.
        img_size: Side of the branch's image in pixels, see :class:`Branch`.
        drop_path_rate: Stochastic depth rate of the last block; timm increases the rate
            linearly from 0.
        model_kwargs: Further options of timm's ``create_model``, such as ``in_chans``,
            the channels of the image, or ``img_size``, for which a position embedding is
            stored (by default the size that the model was trained at).
        kwargs: Further options, see :class:`Branch`. The checkpoint of ``init_cfg`` is
            ``'timm://NAME'``, or a file with timm's names or names that timm can convert.

    Raises:
        ValueError: If timm has no such model, its class is not supported, or an option is
            unknown, reserved or out of range.
    """

    def __init__(
        self,
        model: str,
        img_size: int,
        *,
        drop_path_rate: float = 0.0,
        model_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_timm_model(model)
        check_rate('drop_path_rate', drop_path_rate)
        given = {} if model_kwargs is None else model_kwargs
        check_mapping('model_kwargs', given)
        with torch.device('meta'):
            supported = supported_class(model, timm.create_model(model))
        reserved = [key for key in given if key in (*_RESERVED, *supported.options)]
        if reserved:
            raise ValueError(
                f'model_kwargs sets {reserved} to {[given[key] for key in reserved]}, '
                'which PIIPTimm sets itself; remove them (drop_path_rate is an option of '
                'the branch, and weights are given in init_cfg)'
            )
        options = {**supported.options, **given, 'drop_path_rate': drop_path_rate}

        def build() -> tuple[nn.Module, Adapter]:
            net: Any = timm.create_model(model, **options)
            net.prune_intermediate_layers(1, prune_norm=True, prune_head=True)
            return net, supported.adapter(net)

        in_channels = options.get('in_chans', 3)
        check_int('model_kwargs in_chans', in_channels)
        try:
            with torch.device('meta'):
                _, meta_adapter = build()
            dims, strides = _geometry(meta_adapter, in_channels)
        except Exception as error:  # timm raises any.
            raise ValueError(
                f'timm cannot build {model!r} with model_kwargs {dict(given)}: {error}; '
                'change or remove the option'
            ) from error
        _check_any_size(meta_adapter, in_channels, strides[-1], model)
        super().__init__(img_size=img_size, dims=dims, strides=strides, **kwargs)
        self.in_channels = in_channels
        self.model = model
        self.weights_title = f'timm model {model}'
        #: Options that timm built the model with.
        self.options = options
        self.net, self.adapter = build()
        self.num_prefix_tokens = self.adapter.num_prefix_tokens
        self.has_cls_token = getattr(self.net, 'cls_token', None) is not None
        self._first_name = next(name for name, _ in self.net.named_parameters())
        self._norm_acts = {
            name
            for name, layer in self.net.named_modules()
            if isinstance(layer, BatchNormAct2d)
        }
        self.register_load_state_dict_post_hook(_compute_buffers)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Add a child; conversions between BatchNorm and SyncBatchNorm call this last.

        They replace timm's BatchNorms with activation by BatchNorms that keep the
        activation as a child but do not call it, so a hook does.
        """
        super().add_module(name, module)
        for layer_name, layer in self.net.named_modules():
            is_converted = layer_name in self._norm_acts and not isinstance(
                layer, (BatchNormAct2d, SyncBatchNormAct)
            )
            if is_converted and _activate not in layer._forward_hooks.values():
                layer.register_forward_hook(_activate)

    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return self.adapter.embed(image.to(self._first_weight().dtype))

    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int
    ) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`Branch.run`; hierarchical models change grid and width."""
        return self.adapter.run(tokens, grid, start, stop, self.run_block)

    def _first_weight(self) -> Tensor:
        # By its name, because FSDP may replace parameters by plain tensors.
        return attrgetter(self._first_name)(self.net)

    def weight_rules(self) -> Sequence[Rule]:
        """See :meth:`Branch.weight_rules`; parts of timm's model that the branch does not
        build are dropped."""
        with torch.device('meta'):
            complete = timm.create_model(self.model, **self.options).state_dict()
        kept = self.net.state_dict()

        def own_name(match: re.Match[str]) -> str | None:
            name = match[0]
            is_unread = name in complete or re.fullmatch(_AFTER_THE_BLOCKS, name)
            return None if name not in kept and is_unread else f'net.{name}'

        return [(r'.+', own_name)]

    def prepare_weights(self, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        """Convert a file as timm does on loading: names of the original releases, and the
        sizes of position embeddings, tables of relative positions and patch kernels."""
        module = sys.modules[type(self.net).__module__]
        convert = getattr(module, 'checkpoint_filter_fn', None)
        converted = convert(dict(weights), self.net) if convert else weights
        for name, tensor in converted.items():
            if name in weights and weights[name].shape != tensor.shape:
                print_log(
                    f'{name}: resized from {tuple(weights[name].shape)} to '
                    f'{tuple(tensor.shape)}',
                    logger='current',
                )
        return converted

    def delete_blocks(self, start: int) -> None:
        self.adapter.truncate(start)

    def embedding_modules(self) -> Sequence[nn.Module | nn.Parameter]:
        parts = [
            child
            for name, child in self.net.named_children()
            if name != self.adapter.root
        ]
        return [*parts, *self.net.parameters(recurse=False)]

    def block_modules(self) -> Sequence[Sequence[nn.Module]]:
        return [
            [self.net.get_submodule(name) for name in names]
            for names in self.adapter.blocks()
        ]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        name = param_name.removeprefix(prefix).removeprefix('net.')
        for index, modules in enumerate(self.adapter.blocks()):
            if name.startswith(tuple(f'{module}.' for module in modules)):
                return index + 1, self.depth + 2
        return 0, self.depth + 2


def _activate(norm: nn.Module, _: Any, x_BCHW: Tensor) -> Tensor:
    """Forward hook of a converted ``BatchNormAct2d``."""
    layer: Any = norm
    return layer.act(layer.drop(x_BCHW))


def _compute_buffers(branch: nn.Module, _: Any) -> None:
    """State-dict hook: compute the constants that no state dict contains, in case that
    the model was built on the meta device."""
    assert isinstance(branch, PIIPTimm)
    net = branch.net
    device = branch._first_weight().device
    for module in net.modules():
        for name in module._non_persistent_buffers_set:
            buffer = module._buffers[name]
            if buffer is not None and buffer.is_meta:  # load_state_dict(assign=True)
                module._buffers[name] = torch.empty_like(buffer, device=device)
    reinit_non_persistent_buffers(net)


def _geometry(
    adapter: Adapter, in_channels: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Width and stride after each block, found by running a model on the meta device."""
    side = adapter.net.pretrained_cfg['input_size'][-1]
    adapter.net.eval()
    shapes = _run_blocks(adapter, in_channels, (side, side))
    dims = tuple(width for width, _ in shapes)
    strides = tuple(round(side / grid[0]) for _, grid in shapes)
    return dims, strides


def _check_any_size(adapter: Adapter, in_channels: int, stride: int, model: str) -> None:
    """Raise ``ValueError`` if a model on the meta device only runs at one image size."""
    try:
        _run_blocks(adapter, in_channels, (3 * stride + 5, 5 * stride + 2))
    except (AssertionError, RuntimeError) as error:
        side = adapter.net.pretrained_cfg['input_size'][-1]
        raise ValueError(
            f'timm model {model!r} cannot be a branch: it has layers that only work at '
            f'one size of {side} x {side} pixels, but branches get images of any size; '
            'choose another model'
        ) from error


def _run_blocks(
    adapter: Adapter, in_channels: int, size: tuple[int, int]
) -> list[tuple[int, tuple[int, int]]]:
    """Width and grid after each block, for an image of the given size."""
    shapes = []
    with torch.no_grad():
        tokens, grid = adapter.embed(torch.empty(1, in_channels, *size, device='meta'))
        for index in range(len(adapter.blocks())):
            tokens, grid = adapter.run(
                tokens, grid, index, index + 1, lambda block, *args: block(*args)
            )
            shapes.append((tokens.shape[2], grid))
    return shapes
