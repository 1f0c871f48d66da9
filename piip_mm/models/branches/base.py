"""The contract between a PIIP and its branches."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NoReturn

from mmengine.model import BaseModule
from torch import Tensor, nn

from piip_mm.checks import OptionErrors, check_bool, check_int, check_ints
from piip_mm.weights.pretrained import load_pretrained, pretrained_entries
from piip_mm.weights.rename import Rule, rename

from ..layers import recompute


class _BranchMeta(OptionErrors):
    """Checks and freezes a branch after its constructor, whichever class that is of."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        branch = super().__call__(*args, **kwargs)
        branch.check_parts()
        return branch.train()


class Branch(BaseModule, metaclass=_BranchMeta):
    """A network that can be run block by block on tokens.

    Only a branch knows how its tokens are made, what happens inside a block, and what the
    weights of its family are called; the network that holds it knows only this
    interface. Shapes: B batch, N = H * W tokens of width C; after block i, C is
    ``dims[i]`` and one token covers ``strides[i]`` pixels. P prefix tokens (class and
    register tokens) may precede them; only the blocks process these.

    A subclass builds the parts of its embedding and ``blocks``, and defines :meth:`embed`
    and :meth:`run`.

    The network calls these two, and never the branch itself. What acts on calls of
    modules (hooks, FSDP, MMEngine's ``activation_checkpointing``) therefore belongs to
    the blocks, each of which is called once per image.

    Attributes:
        blocks: The blocks, in the order in which they are run.
        embedding: Names of the modules and parameters that make up the embedding.
        in_channels: Channels of the image.
        num_prefix_tokens: P.
        has_cls_token: Whether the first prefix token is a class token.
        has_layers: Whether :meth:`get_layer_depth` distinguishes the blocks; otherwise
            all parameters belong to the last layer.
        weights_title: Name of the family in messages about weights.
        optional_weights: Regular expression for names that a pretrained file may lack.
        built_depth: Number of blocks that the branch was built with; the network may have
            removed the last of them.

    Args:
        img_size: Side in pixels of the branch's image; at run time only its ratio to the
            first branch's ``img_size`` matters.
        dims: Width after each block.
        strides: Stride in pixels after each block.
        with_cp: Recompute blocks in the backward pass to save memory.
        frozen_stages: -1 trains everything, 0 freezes the embedding, k the embedding and
            the first k blocks, including the statistics of their BatchNorms.
        norm_eval: Keep the statistics of all BatchNorms as they are in training.
        init_cfg: MMEngine's initialisation config; ``dict(type='Pretrained',
            checkpoint=...)`` loads weights of the branch's family, or with ``prefix`` a
            part of a file, see :func:`piip_mm.weights.pretrained.load_pretrained`.

    Raises:
        ValueError: If ``img_size`` is too small for a single token, ``frozen_stages`` is
            out of range, ``init_cfg`` is wrong, see
            :func:`piip_mm.weights.pretrained.pretrained_entries`, or what a subclass
            built is not what it describes, see also :meth:`check_parts`.
    """

    blocks: nn.ModuleList
    embedding: tuple[str, ...] = ('patch_embed',)

    in_channels = 3
    num_prefix_tokens = 0
    has_cls_token = False
    has_layers = True
    weights_title = 'this family'
    optional_weights = ''

    def __init__(
        self,
        *,
        img_size: int,
        dims: tuple[int, ...],
        strides: tuple[int, ...],
        with_cp: bool = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self._pretrained()
        check_int('img_size', img_size)
        check_int('frozen_stages', frozen_stages, minimum=-1)
        check_bool('with_cp', with_cp)
        check_bool('norm_eval', norm_eval)
        check_ints('dims', dims)
        check_ints('strides', strides)
        if not dims or len(dims) != len(strides):
            raise ValueError(
                f'{len(dims)} dims and {len(strides)} strides: expected one of each for '
                'every block'
            )
        if img_size < strides[-1]:
            raise ValueError(
                f'img_size {img_size} is smaller than one patch of {strides[-1]} pixels; '
                f'use at least {strides[-1]}'
            )
        if frozen_stages > len(dims):
            raise ValueError(
                f'frozen_stages={frozen_stages}: expected -1 (none) to {len(dims)} '
                '(all blocks)'
            )
        self.img_size = img_size
        self.dims = tuple(dims)
        self.strides = tuple(strides)
        self.built_depth = len(dims)
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.dims)

    @property
    def min_size(self) -> int:
        """Smallest side in pixels of an image that gives a token after the last block."""
        return self.strides[-1]

    @abstractmethod
    def embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, in_channels, h, w) image to (B, P + N, C) tokens and their grid (H, W)."""

    @abstractmethod
    def run(
        self, tokens: Tensor, grid: tuple[int, int], start: int, stop: int
    ) -> tuple[Tensor, tuple[int, int]]:
        """Run blocks ``start`` to ``stop - 1``; tokens and grid may change shape."""

    def run_block(self, block: Callable[..., Tensor], *args: Any) -> Tensor:
        """Run a block, with its activations recomputed in the backward pass if
        ``with_cp`` is set."""
        return recompute(block, *args) if self.with_cp else block(*args)

    def forward(self, *args: Any) -> NoReturn:
        """Raise ``NotImplementedError``: a branch is not called, see the class."""
        raise NotImplementedError(
            f'{type(self).__name__} cannot be called: a network runs it by embed() and '
            'run(). Use it as a branch of PIIP or ViTPyramid, and apply what acts on '
            'calls (hooks, FSDP, activation checkpointing) to its blocks'
        )

    def embedding_modules(self) -> Sequence[nn.Module | nn.Parameter]:
        """Modules and parameters of the embedding."""
        return [getattr(self, name) for name in self.embedding]

    def block_modules(self) -> Sequence[Sequence[nn.Module]]:
        """The modules of each block."""
        return [[block] for block in self.blocks]

    def check_parts(self) -> None:
        """Check what a subclass built; called when its constructor has returned.

        Raises:
            ValueError: If blocks or parts of the embedding are missing, or an option does
                not suit the norms of the blocks.
        """
        try:
            self.embedding_modules()
            num_blocks = len(self.block_modules())
        except AttributeError as error:
            raise ValueError(
                f"{error}; a branch keeps its blocks in 'blocks', and 'embedding' names "
                f'the other parts ({", ".join(self.embedding)})'
            ) from error
        if num_blocks != self.depth:
            raise ValueError(
                f'{type(self).__name__} has {num_blocks} blocks, but dims and strides '
                f'for {self.depth}; give one of each for every block'
            )
        if self.norm_eval and not _batch_norms(self):
            raise ValueError(
                f'norm_eval=True, but this {type(self).__name__} has no BatchNorm; '
                'remove norm_eval'
            )
        trained = chain(*self.block_modules()[max(self.frozen_stages, 0) :])
        if self.with_cp and not self.norm_eval and any(map(_batch_norms, trained)):
            raise ValueError(
                'with_cp=True runs blocks twice, which would update the statistics of '
                'their BatchNorms twice; set norm_eval=True or with_cp=False'
            )

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter for layer-wise learning-rate decay.

        Args:
            param_name: Full name of the parameter.
            prefix: Prefix of the branch's names.

        Returns:
            Layer id and number of layers: 0 for the embedding, i + 1 for block i, and
            ``depth + 1`` for anything after the blocks; there are ``depth + 2`` layers.
        """
        num_layers = self.depth + 2
        name = param_name.removeprefix(prefix)
        part, *rest = name.split('.')
        if self.has_layers and part in self.embedding:
            return 0, num_layers
        if self.has_layers and part == 'blocks':
            return int(rest[0]) + 1, num_layers
        return num_layers - 1, num_layers

    def truncate(self, depth: int) -> None:
        """Remove all but the first ``depth`` blocks."""
        self.dims = self.dims[:depth]
        self.strides = self.strides[:depth]
        self.frozen_stages = min(self.frozen_stages, depth)
        self.delete_blocks(depth)

    def delete_blocks(self, start: int) -> None:
        """Delete the modules of the blocks from ``start`` on."""
        del self.blocks[start:]

    def weight_rules(self) -> Sequence[Rule]:
        """Rules that map names in pretrained and published files to the branch's names.

        A family without pretrained weights needs none.
        """
        return []

    def without_removed_blocks(self, rules: Sequence[Rule]) -> list[Rule]:
        """Rules that also drop the blocks that the network has removed."""

        def own_name(match: re.Match[str]) -> str | None:
            name = rename(match[0], rules)
            block = re.match(r'blocks\.(\d+)\.', name or '')
            is_removed = block and self.depth <= int(block[1]) < self.built_depth
            return None if is_removed else name

        return [(r'.+', own_name)]

    def prepare_weights(self, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        """Convert the content of a pretrained file where renaming is not enough; called
        before the names are translated."""
        return weights

    def fit_weight(self, name: str, tensor: Tensor) -> Tensor:
        """Resize a tensor of a pretrained file to the branch's parameter ``name``.

        Raises:
            ValueError: If the tensor cannot be resized.
        """
        return tensor

    def _pretrained(self) -> Mapping[str, Any] | None:
        """The entry of ``init_cfg`` that loads pretrained weights."""
        entries = pretrained_entries(self.init_cfg)
        if len(entries) > 1:
            raise ValueError(
                f'init_cfg loads {len(entries)} files into one branch; keep one of them'
            )
        return entries[0] if entries else None

    def init_weights(self) -> None:
        """Load pretrained weights, or initialise according to ``init_cfg``.

        Raises:
            ValueError: See :func:`piip_mm.weights.pretrained.load_pretrained`.
        """
        entry = self._pretrained()
        if entry is None:
            super().init_weights()
            return
        load_pretrained(self, entry['checkpoint'], entry.get('prefix'))
        self._is_init = True

    def freeze_stages(self) -> None:
        """Freeze the embedding and blocks that ``frozen_stages`` selects."""
        stages = [self.embedding_modules(), *self.block_modules()]
        for module in chain(*stages[: self.frozen_stages + 1]):
            module.requires_grad_(False)
            if isinstance(module, nn.Module):
                module.eval()

    def train(self, mode: bool = True) -> Branch:
        """Set the mode; frozen stages stay in evaluation mode, and so do all BatchNorms
        if ``norm_eval`` is set."""
        super().train(mode)
        self.freeze_stages()
        if self.norm_eval:
            for norm in _batch_norms(self):
                norm.eval()
        return self


def _batch_norms(module: nn.Module) -> list[nn.Module]:
    """Layers with running statistics: also mmcv's SyncBatchNorm, which has no base class
    in common with PyTorch's."""
    layers = module.modules()
    return [x for x in layers if getattr(x, 'running_mean', None) is not None]
