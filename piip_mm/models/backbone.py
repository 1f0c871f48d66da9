"""What the backbones share: the images of the branches and published weights."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import MODELS
from torch import Tensor, nn

from piip_mm.checks import OptionErrors, check_choice, check_mapping, check_sequence
from piip_mm.config_types import describes
from piip_mm.weights.pretrained import pretrained_entries
from piip_mm.weights.rename import Rule, rename_state_dict
from piip_mm.weights.report import check_values, compare
from piip_mm.weights.state_dict import names_under, translate_in_place

from .branches import Branch
from .published_names import is_published_backbone
from .pyramid import Pyramid

#: Kinds of output of a backbone.
OUT_TYPES = ('pyramid', 'maps', 'cls_tokens')


class Backbone(BaseModule, metaclass=OptionErrors):
    """A network of one or more branches, each of which sees the image at its own size.

    A state dict of the published PIIP code is recognised and translated however it is
    loaded. It must fit completely, so that no parameter keeps its initial value.

    Args:
        out_type: One of :data:`OUT_TYPES`.
        out_strides: Strides of the output maps in pixels.
        init_cfg: MMEngine's initialisation config, for the network as a whole.

    Raises:
        ValueError: If the type is unknown or there are no strides.
    """

    pyramid: Pyramid

    def __init__(
        self, out_type: str, out_strides: Sequence[float], init_cfg: dict | None
    ) -> None:
        super().__init__(init_cfg)
        check_choice('out_type', out_type, OUT_TYPES)
        check_sequence('out_strides', out_strides)
        if not out_strides:
            raise ValueError('out_strides is empty; give at least one stride')
        self.out_type = out_type
        self.out_strides = tuple(out_strides)
        for entry in pretrained_entries(self.init_cfg):
            # MMEngine loads these after the parts have loaded theirs, unless the type is
            # a dotted name.
            entry['type'] = PretrainedInit
        self.register_load_state_dict_pre_hook(_translate_and_check)

    @property
    @abstractmethod
    def branch_list(self) -> list[Branch]:
        """The branches, from high to low resolution."""

    @abstractmethod
    def forward_images(self, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Extract features from one (B, in_channels, h, w) image per branch."""

    @abstractmethod
    def published_rules(self) -> list[Rule]:
        """Rules that map names in published checkpoints to names of this network."""

    def convert_published(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Translate the weights of a published backbone, all of which have to fit."""
        converted, dropped = rename_state_dict(tensors, self.published_rules())
        report = compare(converted, self, dropped)
        if report.misfits:
            raise ValueError(
                'the weights of the published PIIP code do not fit the '
                f'{type(self).__name__} of the config: {report}'
            )
        print_log(f'Published PIIP backbone: {report.summary()}', logger='current')
        return converted

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            image: (B, in_channels, H, W), large enough to give every branch a patch and
                every output map a pixel.

        Returns:
            Tensors in float32 under autocast, in the type of the model otherwise, see
            ``out_type``: a map (B, C, H // s, W // s) for each
            stride s of ``out_strides``, with H and W rounded down to whole patches of the
            first branch; or the map (B, C_b, H_b, W_b) or class token (B, C_b) of each
            branch.

        Raises:
            ValueError: If the image is too small or has other channels.
        """
        return self.forward_images(
            [self.branch_image(image, index) for index in range(len(self.branch_list))]
        )

    def branch_image(self, image: Tensor, index: int) -> Tensor:
        """The image as a branch sees it.

        Args:
            image: (B, in_channels, H, W), the image of the first branch.
            index: Index of the branch.

        Returns:
            (B, in_channels, int(H * r), int(W * r)), where r is the ratio of the branch's
            ``img_size`` to the first branch's; the image itself if r is 1.

        Raises:
            ValueError: If the image is too small for a branch, or has other channels or
                integer pixels.
        """
        channels = self.branch_list[index].in_channels
        if image.ndim != 4 or image.shape[1] != channels:
            raise ValueError(
                f'input of shape {tuple(image.shape)}: expected images '
                f'(B, {channels}, H, W), {channels} being the channels of the branches'
            )
        if not image.is_floating_point():
            raise ValueError(
                f'input of type {image.dtype}: expected floating-point images, with mean '
                'and standard deviation as in the data_preprocessor of the config'
            )
        ratios = [
            branch.img_size / self.branch_list[0].img_size for branch in self.branch_list
        ]
        ratio, min_size = ratios[index], self._min_size(index)
        # Not int(), which torch.export would take for a constant.
        height, width = (math.floor(side * ratio) for side in image.shape[2:])
        if min(height, width) < min_size:
            smallest_input = max(
                next(side for side in count(1) if int(side * r) >= self._min_size(i))
                for i, r in enumerate(ratios)
            )
            raise ValueError(
                f'branch {index} sees the {image.shape[2]} x {image.shape[3]} input at '
                f'{height} x {width} pixels, too small for patches of '
                f'{self.branch_list[index].min_size} and output strides '
                f'{self.out_strides}; use inputs of at least {smallest_input} pixels per '
                'side'
            )
        if ratio >= 1:
            return image
        # The released models were trained with the ratio as scale_factor: the sampling
        # grid comes from the ratio itself, not from the (truncated) output size.
        return F.interpolate(
            image, scale_factor=ratio, mode='bilinear', align_corners=False
        )

    def check_out_type(self, options: Mapping[str, Any]) -> None:
        """Check ``out_type`` against the branches and the options of the pyramid.

        Args:
            options: Options that only apply to a pyramid; those that are None are unset.

        Raises:
            ValueError: If a branch has no class token to return, or an option is set that
                does not apply.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if self.out_type != 'pyramid' and given:
            raise ValueError(
                f"{given} are options of out_type='pyramid', not of {self.out_type!r}; "
                'remove them'
            )
        for index, branch in enumerate(self.branch_list):
            if self.out_type == 'cls_tokens' and not branch.has_cls_token:
                raise ValueError(
                    f"out_type='cls_tokens', but branch {index} "
                    f'({type(branch).__name__}) has no class token; give it one '
                    "(with_cls_token=True), or use out_type='maps'"
                )

    def _min_size(self, index: int) -> int:
        """Smallest side of a branch's image; the first branch sets the output grids."""
        sets_grids = index == 0 and self.out_type == 'pyramid'
        min_grid = self.pyramid.min_grid if sets_grids else 1
        return self.branch_list[index].min_size * min_grid


def build_branch(cfg: Any, name: str) -> Branch:
    """Build a branch; raise ``ValueError`` with the name of the option if it is none."""
    check_mapping(name, cfg)
    if not describes(cfg, MODELS, Branch):
        known = [
            key
            for key, value in MODELS.module_dict.items()
            if isinstance(value, type) and issubclass(value, Branch)
        ]
        raise ValueError(
            f'{name}.type={cfg.get("type")!r}: expected a branch: {", ".join(known)}'
        )
    try:
        return MODELS.build(dict(cfg))
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from error


def _translate_and_check(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    """State-dict pre-hook: translate a published backbone's names in place.

    Raises:
        ValueError: If published weights do not fit; the message lists tensors that are
            missing, left over or of another shape. If any weights are not finite numbers.
    """
    assert isinstance(module, Backbone)
    translate = module.convert_published
    translate_in_place(module, state_dict, prefix, is_published_backbone, translate)
    check_values(names_under(prefix, state_dict), module)
