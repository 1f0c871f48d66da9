"""Single-branch baseline: one network and a feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor

from piip_mm.checks import check_ints
from piip_mm.weights.rename import Rule

from .backbone import Backbone, build_branch
from .branches import Branch
from .init import init_new_layers
from .layers import as_map, as_output
from .published_names import single_branch_rules
from .pyramid import Pyramid


@MODELS.register_module()
class ViTPyramid(Backbone):
    """A single branch as the backbone of a detector, segmentor or classifier.

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
        super().__init__(out_type, out_strides, init_cfg)
        self.branch = build_branch(branch, 'branch')
        self.check_out_type(dict(out_blocks=out_blocks))
        depth = self.branch.depth
        if out_blocks is None:
            out_blocks = [depth - 1] * len(out_strides)
        check_ints('out_blocks', out_blocks, minimum=0)
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
            # Nothing reads the blocks after the last output.
            self.branch.truncate(self.out_blocks[-1] + 1)
        if out_type == 'pyramid':
            self.pyramid = Pyramid(
                [self.branch.dims[block] for block in out_blocks],
                [self.branch.strides[block] for block in out_blocks],
                out_strides,
                norm,
            )
            init_new_layers(self.pyramid)

    @property
    def branch_list(self) -> list[Branch]:
        return [self.branch]

    def forward_images(self, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
        (image,) = images
        tokens, grid = self.branch.embed(image)
        maps: dict[int, Tensor] = {}
        start = 0
        for block in sorted(set(self.out_blocks)):
            tokens, grid = self.branch.run(tokens, grid, start, block + 1)
            maps[block] = as_map(tokens[:, self.branch.num_prefix_tokens :], grid)
            start = block + 1
        match self.out_type:
            case 'cls_tokens':
                return (as_output(tokens[:, 0]),)
            case 'maps':
                return (as_output(maps[block]),)
            case _:
                return self.pyramid([maps[block] for block in self.out_blocks])

    def published_rules(self) -> list[Rule]:
        ratios = self.pyramid.ratios if self.out_type == 'pyramid' else []
        return single_branch_rules(self.branch, ratios)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter, see :meth:`Branch.get_layer_depth`."""
        name = param_name.removeprefix(prefix)
        if name.startswith('branch.'):
            return self.branch.get_layer_depth(name, 'branch.')
        num_layers = self.branch.depth + 2
        return num_layers - 1, num_layers
