"""Single-branch baseline: one network and a simple feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from .init import init_new_layers
from .pyramid import SimplePyramid


@MODELS.register_module()
class ViTPyramid(BaseModule):
    """A branch alone, as the backbone of a detector or segmentor (ViTDet).

    Args:
        branch: Config of the branch.
        out_strides: Strides of the output maps in pixels.
        norm: Norm of the x4 level, see :class:`SimplePyramid`.
        init_cfg: MMEngine's initialisation config, for the network as a whole.

    Raises:
        ValueError: If an output stride cannot be reached or the norm is unknown.
    """

    def __init__(
        self,
        branch: Mapping[str, Any],
        out_strides: Sequence[float] = (4, 8, 16, 32),
        norm: str = 'LN',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.branch = MODELS.build(dict(branch))
        self.pyramid = SimplePyramid(
            self.branch.dims[-1], self.branch.strides[-1], out_strides, norm
        )
        self.out_strides = tuple(out_strides)
        init_new_layers(self.pyramid)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            image: (B, 3, H, W), at least one pixel of every output map.

        Returns:
            Float32 maps (B, C, H // s, W // s), one for each s of ``out_strides``, where
            H and W count whole patches.

        Raises:
            ValueError: If the image is too small for an output map.
        """
        enough = self.branch.min_size * self.pyramid.min_grid
        if min(image.shape[2:]) < enough:
            raise ValueError(
                f'input of {image.shape[2]} x {image.shape[3]} pixels is too small for '
                f'output strides {self.out_strides}; use inputs of at least {enough} '
                'pixels a side'
            )
        tokens, grid = self.branch.embed(image)
        tokens, grid = self.branch.run(tokens, grid, 0, self.branch.depth)
        return self.pyramid(tokens.transpose(1, 2).unflatten(2, grid))

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Place of a parameter for layer decay, see :meth:`Branch.get_layer_depth`."""
        return self.branch.get_layer_depth(param_name, f'{prefix}branch.')
