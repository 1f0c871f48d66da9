"""A classifier for every branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from piip_mm.checks import check_choice, check_sequence
from piip_mm.weights.pretrained import pretrained_entries
from piip_mm.weights.report import check_values
from piip_mm.weights.source import errors_in, load_weights
from piip_mm.weights.state_dict import select_prefix

from ..init import init_new_layers
from ..layers import BLOCK_NORMS, as_tokens
from .base import BranchHead

#: The token of a branch that is classified: its class token, its first patch token (top
#: left; the one that the released models classify), or the mean of its patch tokens.
TOKENS = ('cls', 'first_patch', 'mean')


@MODELS.register_module()
class PIIPSeparateHead(BranchHead):
    """Mean over the branches of ``linear(norm(token))``, with separate layers for each.

    The backbone needs ``out_type='cls_tokens'`` for ``token='cls'``, otherwise 'maps'.

    Args:
        num_classes: Number of classes.
        in_channels: Width of each branch, in the order of the backbone's branches.
        token: One of :data:`TOKENS`.
        norm: Final norm, one of :data:`piip_mm.models.layers.BLOCK_NORMS`; one name, or
            one per branch.
        init_cfg: MMEngine's initialisation config. A list with one
            ``dict(type='Pretrained', checkpoint=...)`` per branch (or a dict for a single
            branch) loads final norms and classifiers from the files that the branches
            are pretrained from; ``prefix`` selects a part of a file.
        kwargs: Options of mmpretrain's ``ClsHead``: ``loss``, ``topk``, ``cal_acc``.

    Raises:
        ValueError: If an option is unknown, a number not positive, there are not as many
            norms or checkpoints as branches, or ``init_cfg`` is wrong.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        *,
        token: str = 'cls',
        norm: str | Sequence[str] = 'LN',
        init_cfg: dict | Sequence[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        check_choice('token', token, TOKENS)
        norms = [norm] * len(self.in_channels) if isinstance(norm, str) else norm
        check_sequence('norm', norms)
        if len(norms) != len(self.in_channels):
            raise ValueError(
                f'norm {norms} for {len(self.in_channels)} branches; give one name, or '
                'one per branch'
            )
        for name in norms:
            check_choice('norm', name, BLOCK_NORMS)
        self.token = token
        self.norms = nn.ModuleList(
            BLOCK_NORMS[name](dims, eps=1e-6)
            for name, dims in zip(norms, self.in_channels, strict=True)
        )
        self.classifiers = nn.ModuleList(
            nn.Linear(dims, num_classes) for dims in self.in_channels
        )
        init_new_layers(self)
        self._pretrained()

    def _pretrained(self) -> Sequence[Mapping[str, Any]]:
        """Entries of ``init_cfg`` that load weights, one per branch, or none."""
        entries = pretrained_entries(self.init_cfg)
        if entries and len(entries) != len(self.norms):
            raise ValueError(
                f'{len(entries)} pretrained files in init_cfg of a head on '
                f'{len(self.norms)} branches; give one per branch, in the same order'
            )
        return entries

    def init_weights(self) -> None:
        """Load final norms and classifiers, or initialise according to ``init_cfg``.

        Raises:
            FileNotFoundError: If a local file does not exist.
            ConnectionError: If a download fails.
            ValueError: If a file has no final norm, one of another width, or other values
                than finite numbers.
        """
        entries = self._pretrained()
        if not entries:
            super().init_weights()
            return
        for norm, classifier, entry in zip(
            self.norms, self.classifiers, entries, strict=True
        ):
            assert isinstance(classifier, nn.Linear)
            _load_pretrained(norm, classifier, entry['checkpoint'], entry.get('prefix'))
        self._is_init = True

    def pre_logits(self, feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Normalised (B, C_b) token of every branch.

        Args:
            feats: Class tokens (B, C_b) or maps (B, C_b, H_b, W_b), see ``token``.

        Raises:
            ValueError: If the features do not fit.
        """
        self.check_feats(feats, maps=self.token != 'cls')
        if self.token == 'mean':
            return tuple(
                norm(as_tokens(feat)).mean(1)
                for norm, feat in zip(self.norms, feats, strict=True)
            )
        if self.token == 'first_patch':
            feats = [feat[:, :, 0, 0] for feat in feats]
        return tuple(norm(feat) for norm, feat in zip(self.norms, feats, strict=True))

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Features (see :meth:`pre_logits`) to (B, num_classes) logits."""
        logits = [
            classifier(token)
            for classifier, token in zip(
                self.classifiers, self.pre_logits(feats), strict=True
            )
        ]
        return torch.stack(logits).mean(0)


def _load_pretrained(
    norm: nn.Module, classifier: nn.Linear, checkpoint: str, prefix: str | None = None
) -> None:
    """Load the norm after the last block, and the classifier if its shape fits."""
    parts = nn.ModuleDict({'norm': norm, 'head': classifier})
    content = load_weights(checkpoint)
    with errors_in(checkpoint):
        tensors = select_prefix(content, prefix)
        weights = {name: tensors[name] for name in parts.state_dict() if name in tensors}
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
