"""Single-branch baseline: one network and a feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from .checks import check_choice, check_sequence
from .init import init_new_layers
from .piip import OUT_TYPES
from .pyramid import Pyramid


@MODELS.register_module()
class ViTPyramid(BaseModule):
    """A branch alone, as the backbone of a detector, segmentor or classifier.

    Args:
        branch: Config of the branch.
        out_strides: Strides of the output maps in pixels.
        out_blocks: For a regular pyramid: the block (from 0) that each level is made
            from. None makes all levels from the last block (ViTDet).
        norm: Norm of the x4 level, see :class:`Pyramid`.
        out_type: 'pyramid'; 'maps', the map of the last block; or 'cls_tokens', its class
            token.
        init_cfg: MMEngine's initialisation config, for the network as a whole.

    Raises:
        ValueError: If an output stride cannot be reached, a block does not exist, an
            option is unknown or there is no class token to return.
    """

    def __init__(
        self,
        branch: Mapping[str, Any],
        out_strides: Sequence[float] = (4, 8, 16, 32),
        out_blocks: Sequence[int] | None = None,
        norm: str = 'LN',
        out_type: str = 'pyramid',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_choice('out_type', out_type, OUT_TYPES)
        check_sequence('out_strides', out_strides)
        self.branch = MODELS.build(dict(branch))
        self.out_type = out_type
        self.out_strides = tuple(out_strides)
        if out_type == 'cls_tokens' and not self.branch.has_cls_token:
            raise ValueError(
                f"out_type='cls_tokens', but the branch ({type(self.branch).__name__}) "
                "has no class token; give it one (with_cls_token=True), or use 'maps'"
            )
        depth = self.branch.depth
        if out_blocks is not None and out_type != 'pyramid':
            raise ValueError(
                f"out_blocks={out_blocks} belong to out_type='pyramid', not to "
                f'{out_type!r}; remove them'
            )
        if out_blocks is None:
            out_blocks = [depth - 1] * len(out_strides)
        check_sequence('out_blocks', out_blocks)
        if (
            len(out_blocks) != len(out_strides)
            or sorted(out_blocks) != list(out_blocks)
            or not set(out_blocks) <= set(range(depth))
        ):
            raise ValueError(
                f'out_blocks {tuple(out_blocks)} for out_strides {self.out_strides}: '
                'expected one block for each stride, not decreasing, from 0 to '
                f'{depth - 1}'
            )
        self.out_blocks = tuple(out_blocks)
        if self.out_blocks[-1] + 1 < depth:
            # Nothing reads the others.
            self.branch.truncate(self.out_blocks[-1] + 1)
        if out_type == 'pyramid':
            self.pyramid = Pyramid(
                [self.branch.dims[block] for block in out_blocks],
                [self.branch.strides[block] for block in out_blocks],
                out_strides,
                norm,
            )
            init_new_layers(self.pyramid)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            image: (B, 3, H, W), at least one pixel of every output map.

        Returns:
            Float32 maps (B, C, H // s, W // s), one for each s of ``out_strides``, where
            H and W count whole patches; or a single (B, C, H', W') or (B, C), see
            ``out_type``.

        Raises:
            ValueError: If the image is too small for an output map.
        """
        min_grid = self.pyramid.min_grid if self.out_type == 'pyramid' else 1
        enough = self.branch.min_size * min_grid
        if min(image.shape[2:]) < enough:
            raise ValueError(
                f'input of {image.shape[2]} x {image.shape[3]} pixels is too small for '
                f'output strides {self.out_strides}; use inputs of at least {enough} '
                'pixels a side'
            )
        tokens, grid = self.branch.embed(image)
        maps: dict[int, Tensor] = {}
        start = 0
        for block in sorted(set(self.out_blocks)):
            tokens, grid = self.branch.run(tokens, grid, start, block + 1)
            patches = tokens[:, self.branch.num_prefix_tokens :]
            maps[block] = patches.transpose(1, 2).unflatten(2, grid)
            start = block + 1
        match self.out_type:
            case 'cls_tokens':
                return (tokens[:, 0].float(),)
            case 'maps':
                return (maps[block].float(),)
            case _:
                return self.pyramid([maps[block] for block in self.out_blocks])

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Place of a parameter for layer decay, see :meth:`Branch.get_layer_depth`."""
        return self.branch.get_layer_depth(param_name, f'{prefix}branch.')
