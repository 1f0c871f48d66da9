"""Parameter-inverted image pyramid network (PIIP, NeurIPS 2024; v2 TPAMI 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule, ModuleList
from mmengine.registry import MODELS
from torch import Tensor

from .checks import check_choice, check_int, check_sequence
from .directions import groups_read, plan_interactions
from .init import init_new_layers
from .interaction import InteractionStage, check_injector_options
from .merging import BranchMerge
from .pyramid import Pyramid

#: What the network returns.
OUT_TYPES = ('pyramid', 'maps', 'cls_tokens')


@MODELS.register_module()
class PIIP(BaseModule):
    """N branches on an image pyramid: the larger the image, the smaller the network.

    The input is the image of the first branch; the others see it scaled by the ratio of
    their ``img_size`` to the first one's. After every group of blocks neighbouring
    branches exchange features; at the end the branches are merged into one map, from
    which the output levels are made (PIIP, section 3).

    Args:
        branches: Configs of two or more branches, from high to low resolution. A merged
            map has the grid of the first and the width of the last.
        interaction: Options of the interactions: ``direction`` (a name in
            :data:`piip_mm.models.directions.DIRECTIONS` or patterns of edges) and those
            of :class:`piip_mm.models.interaction.Injector`.
        num_interactions: Number of interaction stages, 0 for none. The blocks of every
            branch are split evenly into as many groups.
        interaction_ends: Last block of each group, one list a branch, where an even
            split is not possible or not wanted.
        merge_branches: Branches that enter the merge; None for all.
        out_strides: Strides of the output maps in pixels of the input; read for a pyramid
            only.
        out_interactions: For a regular pyramid, where each level has a merge of its own:
            the interactions (from 0) whose maps the levels but the last are merged from.
            None makes a simple pyramid, all levels from the map after the last block.
        out_type: 'pyramid', merged maps; 'maps', the map of every branch; or
            'cls_tokens', the class token of every branch.
        init_cfg: MMEngine's initialisation config, for the network as a whole.

    Raises:
        ValueError: If the parts do not fit together; the message names both values.
    """

    def __init__(
        self,
        branches: Sequence[Mapping[str, Any]],
        num_interactions: int,
        interaction: Mapping[str, Any] | None = None,
        interaction_ends: Sequence[Sequence[int]] | None = None,
        merge_branches: Sequence[int] | None = None,
        out_strides: Sequence[float] = (4, 8, 16, 32),
        out_interactions: Sequence[int] | None = None,
        out_type: str = 'pyramid',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_sequence('branches', branches)
        check_sequence('out_strides', out_strides)
        check_int('num_interactions', num_interactions, minimum=0)
        check_choice('out_type', out_type, OUT_TYPES)
        if len(branches) < 2:
            raise ValueError(
                f'PIIP needs at least two branches, got {len(branches)}; for a single '
                "one use the backbone 'ViTPyramid'"
            )
        self.branches = ModuleList([MODELS.build(dict(cfg)) for cfg in branches])
        _check_resolutions([branch.img_size for branch in self.branches])
        self.depths = [branch.depth for branch in self.branches]
        self.ends = _group_ends(self.depths, num_interactions, interaction_ends)
        self.out_type = out_type
        self.out_strides = tuple(out_strides)

        merged = _merged_branches(merge_branches, len(branches))
        last = len(self.ends[0]) - 1
        self.merge_stages = _merge_stages(out_interactions, len(out_strides), last)
        if out_type != 'pyramid' and not (merge_branches is out_interactions is None):
            raise ValueError(
                f'merge_branches={merge_branches} and out_interactions='
                f"{out_interactions} belong to out_type='pyramid', not to {out_type!r}; "
                'remove them'
            )
        for index, branch in enumerate(self.branches):
            if out_type == 'cls_tokens' and not branch.has_cls_token:
                raise ValueError(
                    f"out_type='cls_tokens', but branch {index} "
                    f'({type(branch).__name__}) has no class token; give it one '
                    "(with_cls_token=True), or use out_type='maps'"
                )

        options = dict(interaction or {})
        check_injector_options(options)
        patterns = plan_interactions(
            options.pop('direction', 'neighbours'),
            len(branches),
            num_interactions,
            outputs=[] if out_type == 'cls_tokens' else merged,
            taps=self.merge_stages,
            prefix_outputs=merged if out_type == 'cls_tokens' else (),
        )
        dims = [branch.dims for branch in self.branches]
        self.interactions = ModuleList(
            InteractionStage(
                [dims[index][ends[stage]] for index, ends in enumerate(self.ends)],
                pattern,
                **options,
            )
            for stage, pattern in enumerate(patterns)
        )
        if out_type == 'pyramid':
            self._build_pyramid(merged, light=out_interactions is not None)
        init_new_layers(self.interactions)
        self._drop_unread_blocks(groups_read(patterns, len(branches), merged))

    def _build_pyramid(self, merged: Sequence[int], *, light: bool) -> None:
        """Build the merges, one for each of ``merge_stages``, and the output levels."""
        main = len(self.branches) - 1
        widths, strides = [], []
        self.merges = ModuleList()
        for stage in self.merge_stages:
            dims = {
                i: self.branches[i].dims[self.ends[i][stage]] for i in (*merged, main)
            }
            widths.append(dims[main])
            strides.append(self.branches[0].strides[self.ends[0][stage]])
            entering = {index: dims[index] for index in merged}
            self.merges.append(BranchMerge(entering, dims[main], light=light, main=main))
        if not light:
            widths *= len(self.out_strides)
            strides *= len(self.out_strides)
        self.pyramid = Pyramid(widths, strides, self.out_strides)
        init_new_layers(self.merges)
        init_new_layers(self.pyramid)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            image: (B, 3, H, W) of any size that gives every branch a patch.

        Returns:
            In float32: maps (B, C, H // s, W // s), one for each s of ``out_strides``,
            where H and W count whole patches of the first branch; or for each branch its
            map (B, C_b, H_b, W_b) or its class token (B, C_b), see ``out_type``.

        Raises:
            ValueError: If the image is too small for a branch.
        """
        return self.forward_images(
            [self.branch_image(image, index) for index in range(len(self.branches))]
        )

    def forward_images(self, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Extract features where each branch already has its image.

        Args:
            images: Per branch (B, 3, H_b, W_b), as :meth:`branch_image` returns them.

        Returns:
            As :meth:`forward`.
        """
        tokens, grids = [], []
        for branch, image in zip(self.branches, images, strict=True):
            embedded, grid = branch.embed(image)
            tokens.append(embedded)
            grids.append(grid)
        maps = []
        for stage in range(max(map(len, self.ends))):
            for index, (branch, ends) in enumerate(
                zip(self.branches, self.ends, strict=True)
            ):
                if stage < len(ends):
                    start = ends[stage - 1] + 1 if stage else 0
                    tokens[index], grids[index] = branch.run(
                        tokens[index], grids[index], start, ends[stage] + 1
                    )
            if stage < len(self.interactions):
                tokens = self._interact(stage, tokens, grids)
            if self.out_type == 'pyramid' and stage in self.merge_stages:
                merge = self.merges[self.merge_stages.index(stage)]
                maps.append(merge(self._patches(tokens), grids, grids[0]))
        if self.out_type == 'cls_tokens':
            return tuple(x[:, 0].float() for x in tokens)
        if self.out_type == 'maps':
            return tuple(
                x.transpose(1, 2).unflatten(2, grid).float()
                for x, grid in zip(self._patches(tokens), grids, strict=True)
            )
        if len(maps) == 1:
            maps *= len(self.out_strides)
        return self.pyramid(maps)

    def _interact(
        self, stage: int, tokens: list[Tensor], grids: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Exchange features between the patch tokens; prefix tokens stay as they are."""
        patches = self._patches(tokens)
        updated = self.interactions[stage](patches, grids)
        for index, branch in enumerate(self.branches):
            if branch.num_prefix_tokens and updated[index] is not patches[index]:
                prefix = tokens[index][:, : branch.num_prefix_tokens]
                updated[index] = torch.cat([prefix, updated[index]], 1)
            elif branch.num_prefix_tokens:
                updated[index] = tokens[index]
        return updated

    def _patches(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Tokens without the prefix tokens of their branches."""
        return [
            x[:, branch.num_prefix_tokens :] if branch.num_prefix_tokens else x
            for x, branch in zip(tokens, self.branches, strict=True)
        ]

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Place of a parameter for layer-wise learning-rate decay.

        With L the depth of the deepest branch that has layers, block i of a branch of
        depth d is layer floor((i + 1) * L / d), an embedding layer 0, and everything else
        layer L + 1.

        Args:
            param_name: Full name of the parameter.
            prefix: What stands before the backbone's own names.

        Returns:
            Layer id and number of layers, L + 2.
        """
        layered = [
            depth
            for branch, depth in zip(self.branches, self.depths, strict=True)
            if branch.has_layers
        ]
        max_depth = max(layered or self.depths)
        num_layers = max_depth + 2
        name = param_name.removeprefix(prefix)
        if not name.startswith('branches.'):
            return num_layers - 1, num_layers
        number, name = name.removeprefix('branches.').split('.', 1)
        index = int(number)
        layer_id, branch_layers = self.branches[index].get_layer_depth(name)
        if layer_id == branch_layers - 1:
            return num_layers - 1, num_layers
        return layer_id * max_depth // self.depths[index], num_layers

    def _drop_unread_blocks(self, groups: Sequence[int]) -> None:
        """Remove the blocks after the last group of a branch that anything reads."""
        for index, (branch, kept) in enumerate(zip(self.branches, groups, strict=True)):
            if kept < len(self.ends[index]):
                self.ends[index] = self.ends[index][:kept]
                branch.truncate(self.ends[index][-1] + 1)
                print_log(
                    f'PIIP branch {index}: nothing reads the blocks after block '
                    f'{branch.depth - 1}, they are not built',
                    logger='current',
                )

    def _min_size(self, index: int) -> int:
        """Smallest side of a branch's image; the first one makes the output maps."""
        makes_levels = index == 0 and self.out_type == 'pyramid'
        min_grid = self.pyramid.min_grid if makes_levels else 1
        return self.branches[index].min_size * min_grid

    def branch_image(self, image: Tensor, index: int) -> Tensor:
        """The image as a branch sees it.

        Args:
            image: (B, 3, H, W), the image of the first branch.
            index: Number of the branch.

        Returns:
            (B, 3, int(H * r), int(W * r)) with the ratio r of the branch's ``img_size``
            to the first one's; the image itself where that is 1.

        Raises:
            ValueError: If the image is too small for a branch.
        """
        branch = self.branches[index]
        ratio = branch.img_size / self.branches[0].img_size
        height, width = (int(side * ratio) for side in image.shape[2:])
        if min(height, width) < self._min_size(index):
            enough = max(
                next(
                    side
                    for side in count(1)
                    if int(side * other.img_size / self.branches[0].img_size)
                    >= self._min_size(i)
                )
                for i, other in enumerate(self.branches)
            )
            raise ValueError(
                f'branch {index} sees the {image.shape[2]} x {image.shape[3]} input at '
                f'{height} x {width} pixels, too small for patches of {branch.min_size} '
                f'and output strides {self.out_strides}; use inputs of at least {enough} '
                'pixels a side'
            )
        if ratio >= 1:
            return image
        # The released models were trained with the ratio as scale_factor: the sampling
        # grid comes from the ratio itself, not from the (truncated) output size.
        return F.interpolate(
            image, scale_factor=ratio, mode='bilinear', align_corners=False
        )


def _check_resolutions(sizes: Sequence[int]) -> None:
    for index, (high, low) in enumerate(pairwise(sizes)):
        if low > high:
            raise ValueError(
                f'img_size increases from {high} (branch {index}) to {low} (branch '
                f'{index + 1}); list the branches from high to low resolution'
            )


def _merged_branches(
    merge_branches: Sequence[int] | None, num_branches: int
) -> list[int]:
    if merge_branches is None:
        return list(range(num_branches))
    check_sequence('merge_branches', merge_branches)
    for index in merge_branches:
        check_int('merge_branches', index, minimum=0)
    merged = set(merge_branches)
    if not merged or len(merged) < len(merge_branches) or merged - {*range(num_branches)}:
        raise ValueError(
            f'merge_branches {merge_branches}: expected different ones of the branches 0 '
            f'to {num_branches - 1}'
        )
    return sorted(merged)


def _merge_stages(
    out_interactions: Sequence[int] | None, num_levels: int, last: int
) -> tuple[int, ...]:
    """Stages after which maps are merged; the last one always is."""
    if out_interactions is None:
        return (last,)
    check_sequence('out_interactions', out_interactions)
    if len(out_interactions) != num_levels - 1:
        raise ValueError(
            f'out_interactions {tuple(out_interactions)} for {num_levels} out_strides; '
            'name one interaction for each level but the last'
        )
    stages = tuple(stage for stage in range(last) if stage in out_interactions)
    if stages != tuple(out_interactions):
        raise ValueError(
            f'out_interactions {tuple(out_interactions)}: expected increasing numbers '
            f'from 0 to {last - 1}, the interactions before the last'
        )
    return (*stages, last)


def _group_ends(
    depths: Sequence[int],
    num_interactions: int,
    interaction_ends: Sequence[Sequence[int]] | None,
) -> list[tuple[int, ...]]:
    """Last block of every group, per branch; one group where nothing interacts."""
    if interaction_ends is None:
        groups = max(num_interactions, 1)
        for index, depth in enumerate(depths):
            if depth % groups:
                raise ValueError(
                    f'the {depth} blocks of branch {index} cannot be split evenly into '
                    f'num_interactions={num_interactions} groups; choose a divisor, or '
                    'give interaction_ends'
                )
        return [tuple(range(d // groups - 1, d, d // groups)) for d in depths]
    if num_interactions == 0:
        raise ValueError('interaction_ends are given, but num_interactions=0; remove one')
    check_sequence('interaction_ends', interaction_ends)
    for index, branch_ends in enumerate(interaction_ends):
        check_sequence(f'interaction_ends of branch {index}', branch_ends)
        for end in branch_ends:
            check_int(f'interaction_ends of branch {index}', end, minimum=0)
    ends = [tuple(branch_ends) for branch_ends in interaction_ends]
    counts = [len(branch_ends) for branch_ends in ends]
    if len(ends) != len(depths) or set(counts) != {num_interactions}:
        raise ValueError(
            f'interaction_ends has groups {counts} for {len(depths)} branches and '
            f'num_interactions={num_interactions}; give every branch as many groups as '
            'there are interactions'
        )
    for index, (branch_ends, depth) in enumerate(zip(ends, depths, strict=True)):
        blocks = tuple(block for block in range(depth) if block in branch_ends)
        if branch_ends != blocks or blocks[-1:] != (depth - 1,):
            raise ValueError(
                f'interaction_ends {branch_ends} of branch {index}: expected increasing '
                f'block numbers that end with its last block, {depth - 1}'
            )
    return ends
