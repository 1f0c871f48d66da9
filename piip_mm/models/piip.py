"""Parameter-inverted image pyramid network (PIIP, NeurIPS 2024; v2 TPAMI 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import ModuleList
from mmengine.registry import MODELS
from torch import Tensor

from piip_mm.checks import check_int, check_sequence
from piip_mm.weights.rename import Rule

from .backbone import Backbone, build_branch
from .branches import Branch
from .directions import groups_read, plan_interactions
from .groups import (
    check_channels,
    check_resolutions,
    resolve_group_ends,
    resolve_merge_branches,
    resolve_merge_stages,
)
from .init import init_new_layers
from .interaction import Injector, InteractionStage, check_injector_options
from .layers import as_map, as_output
from .merging import BranchMerge
from .published_names import piip_rules
from .pyramid import Pyramid


@MODELS.register_module()
class PIIP(Backbone):
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
        interaction_ends: Last block of each group, one list per branch, if an even split
            is not possible or not wanted.
        merge_branches: Branches that enter the merge; None for all.
        out_strides: Strides of the output maps in pixels of the input; only used for a
            pyramid.
        out_interactions: For a regular pyramid, in which each level has its own merge:
            the interactions (from 0) after which all levels but the last are merged.
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
        super().__init__(out_type, out_strides, init_cfg)
        check_sequence('branches', branches)
        check_int('num_interactions', num_interactions, minimum=0)
        if len(branches) < 2:
            raise ValueError(
                f'PIIP needs at least two branches, got {len(branches)}; for a single '
                "one use the backbone 'ViTPyramid'"
            )
        self.branches = ModuleList(
            build_branch(cfg, f'branches[{index}]') for index, cfg in enumerate(branches)
        )
        check_resolutions([branch.img_size for branch in self.branches])
        check_channels([branch.in_channels for branch in self.branches])
        self.depths = [branch.depth for branch in self.branches]
        self.ends = resolve_group_ends(self.depths, num_interactions, interaction_ends)

        merged = resolve_merge_branches(merge_branches, len(branches))
        last = len(self.ends[0]) - 1
        self.merge_stages = resolve_merge_stages(out_interactions, len(out_strides), last)
        self.check_out_type(
            dict(merge_branches=merge_branches, out_interactions=out_interactions)
        )

        check_injector_options({} if interaction is None else interaction)
        options = dict(interaction or {})
        patterns = plan_interactions(
            options.pop('direction', 'neighbours'),
            len(branches),
            num_interactions,
            outputs=[] if out_type == 'cls_tokens' else merged,
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
        if not any(patterns):
            # Wrong options would go unnoticed.
            with torch.device('meta'):
                Injector(dims[0][-1], dims[1][-1], **options)
        init_new_layers(self.interactions)
        groups = groups_read(patterns, len(branches), merged)
        if out_type == 'pyramid':
            light = out_interactions is not None
            self._build_pyramid(merged, groups[0] - 1, light=light)
        self._drop_unread_blocks(groups)
        self.num_groups = max(map(len, self.ends))

    def _build_pyramid(
        self, merged: Sequence[int], last_group: int, *, light: bool
    ) -> None:
        """Build the merges, one for each of ``merge_stages``, and the output levels.

        Args:
            merged: Branches that enter the merges.
            last_group: Last group of blocks of the first branch that is run; its grid is
                that of the merged maps.
            light: See :class:`BranchMerge`.
        """
        main = len(self.branches) - 1
        widths, strides = [], []
        self.merges = ModuleList()
        for stage in self.merge_stages:
            dims = {
                i: self.branches[i].dims[self.ends[i][stage]] for i in (*merged, main)
            }
            widths.append(dims[main])
            end = self.ends[0][min(stage, last_group)]
            strides.append(self.branches[0].strides[end])
            entering = {index: dims[index] for index in merged}
            self.merges.append(BranchMerge(entering, dims[main], light=light, main=main))
        if not light:
            widths *= len(self.out_strides)
            strides *= len(self.out_strides)
        self.pyramid = Pyramid(widths, strides, self.out_strides)
        init_new_layers(self.merges)
        init_new_layers(self.pyramid)

    @property
    def branch_list(self) -> list[Branch]:
        return list(self.branches)

    def forward_images(self, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
        tokens, grids = [], []
        for branch, image in zip(self.branches, images, strict=True):
            embedded, grid = branch.embed(image)
            tokens.append(embedded)
            grids.append(grid)
        maps = []
        for stage in range(self.num_groups):
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
            return tuple(as_output(x[:, 0]) for x in tokens)
        if self.out_type == 'maps':
            return tuple(
                as_output(as_map(x, grid))
                for x, grid in zip(self._patches(tokens), grids, strict=True)
            )
        if len(maps) == 1:
            maps = maps * len(self.out_strides)
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
        """Layer of a parameter for layer-wise learning-rate decay.

        With L the depth of the deepest branch that has layers, block i of a branch of
        depth d is layer floor((i + 1) * L / d), an embedding layer 0, and everything else
        layer L + 1.

        Args:
            param_name: Full name of the parameter.
            prefix: Prefix of the backbone's names.

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

    def published_rules(self) -> list[Rule]:
        ratios = self.pyramid.ratios if self.out_type == 'pyramid' else []
        return piip_rules(self.branch_list, self.merge_stages, ratios)

    def _drop_unread_blocks(self, groups: Sequence[int]) -> None:
        """Remove the blocks after the last group of a branch whose result is read."""
        for index, (branch, kept) in enumerate(zip(self.branches, groups, strict=True)):
            if kept < len(self.ends[index]):
                self.ends[index] = self.ends[index][:kept]
                branch.truncate(self.ends[index][-1] + 1)
                print_log(
                    f'PIIP branch {index}: nothing reads the blocks after block '
                    f'{branch.depth - 1}; they were removed',
                    logger='current',
                )
