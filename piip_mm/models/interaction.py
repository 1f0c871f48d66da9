"""Interactions between branches (PIIP, section 3.2).

Shapes: B batch, Q queries of width C, N feature tokens of width F.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from piip_mm.checks import (
    check_bool,
    check_choice,
    check_int,
    check_keys,
    check_mapping,
    check_number,
    check_rate,
)

from .directions import Pattern
from .layers import CROSS_ATTENTIONS, as_map, as_tokens, recompute

#: Norms before the attention and the feed-forward network of an injector.
NORMS = ('LN', None)


class ConvFFN(nn.Module):
    """Linear, depthwise 3x3 convolution on the token grid, GELU, linear.

    Args:
        dims: Width C.
        hidden_dims: Width between the two linear layers.
    """

    def __init__(self, dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dims, hidden_dims)
        self.dwconv = nn.Conv2d(
            hidden_dims, hidden_dims, 3, padding=1, groups=hidden_dims
        )
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dims, dims)

    def forward(self, x_BQC: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, Q, C) tokens of an (H, W) grid to (B, Q, C)."""
        hidden = as_tokens(self.dwconv(as_map(self.fc1(x_BQC), grid)))
        return self.fc2(self.act(hidden))


class Injector(nn.Module):
    """Adds the features of one branch to the tokens of another (PIIP, eq. 1-2).

    With f = proj(feat)::

        q = q + gamma_attn * attn(norm(q), norm(f))
        q = q + gamma_ffn * drop_path(ffn(norm(q)))

    Both scales start at zero, so that each branch initially computes what it would alone.

    Args:
        dims: Width C of the tokens that receive the features.
        feat_dims: Width F of the features that are read.
        attn: 'deform' or 'regular'.
        num_heads: Heads of the attention.
        num_points: Sampling points per head; 'deform' only.
        value_ratio: Value width over ``dims``; 'deform' only.
        ffn_ratio: Hidden width of the feed-forward network over ``dims``; None for no
            such network.
        drop_path_rate: Probability of skipping the feed-forward network in training.
        proj: Whether features are first projected to width C.
        norm: 'LN', or None for no norms.
        backend: See :func:`piip_mm.ops.deformable_attention`.
        with_cp: Recompute the injector in the backward pass to save memory.

    Raises:
        ValueError: If an option is unknown or the heads do not divide the widths.
    """

    def __init__(
        self,
        dims: int,
        feat_dims: int,
        *,
        attn: str = 'deform',
        num_heads: int = 16,
        num_points: int = 4,
        value_ratio: float = 0.5,
        ffn_ratio: float | None = 0.25,
        drop_path_rate: float = 0.0,
        proj: bool = True,
        norm: str | None = 'LN',
        backend: str = 'auto',
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        check_choice('interaction attn', attn, CROSS_ATTENTIONS)
        check_choice('interaction norm', norm, NORMS)
        check_rate('drop_path_rate', drop_path_rate)
        check_bool('proj', proj)
        check_bool('with_cp', with_cp)
        self.with_cp = with_cp
        self.proj = nn.Linear(feat_dims, dims) if proj else nn.Identity()
        if proj:
            feat_dims = dims
        self.query_norm = _norm(norm, dims)
        self.feat_norm = _norm(norm, feat_dims)
        options: dict[str, Any] = dict(num_heads=num_heads)
        if attn == 'deform':
            options.update(
                num_points=num_points, value_ratio=value_ratio, backend=backend
            )
        self.attn = CROSS_ATTENTIONS[attn](dims, feat_dims, **options)
        self.gamma_attn = nn.Parameter(torch.zeros(dims))
        self.ffn: ConvFFN | None = None
        if ffn_ratio is not None:
            check_number('ffn_ratio', ffn_ratio, above=0)
            self.ffn_norm = _norm(norm, dims)
            hidden = int(dims * ffn_ratio)
            check_int(f'int({dims} * ffn_ratio)', hidden)
            self.ffn = ConvFFN(dims, hidden)
            self.gamma_ffn = nn.Parameter(torch.zeros(dims))
            self.drop_path = DropPath(drop_path_rate)

    def forward(
        self,
        query_BQC: Tensor,
        feat_BNF: Tensor,
        query_grid: tuple[int, int],
        feat_grid: tuple[int, int],
    ) -> Tensor:
        """Inject.

        Args:
            query_BQC: (B, Q, C) tokens of ``query_grid``.
            feat_BNF: (B, N, F) tokens of ``feat_grid``.
            query_grid: (H, W) of the queries.
            feat_grid: (H, W) of the features.

        Returns:
            (B, Q, C).
        """
        feat = self.feat_norm(self.proj(feat_BNF))
        attended = self.attn(self.query_norm(query_BQC), feat, query_grid, feat_grid)
        query_BQC = query_BQC + _scaled(attended, self.gamma_attn)
        if self.ffn is None:
            return query_BQC
        out = self.ffn(self.ffn_norm(query_BQC), query_grid)
        return query_BQC + _scaled(self.drop_path(out), self.gamma_ffn)


def check_injector_options(options: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if options of an :class:`Injector` are unknown, or belong to
    deformable attention while ``attn`` is not 'deform'."""
    known = [
        name
        for name, parameter in signature(Injector).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    check_mapping('interaction', options)
    check_keys('interaction', options, ['direction', *known])
    attn = options.get('attn', 'deform')
    check_choice('interaction attn', attn, CROSS_ATTENTIONS)
    unused = sorted({'num_points', 'value_ratio', 'backend'} & set(options))
    if attn != 'deform' and unused:
        raise ValueError(
            f"interaction options {unused} belong to attn='deform', not to {attn!r}; "
            'remove them'
        )


class InteractionStage(nn.Module):
    """All injectors that act after one group of blocks, for any number of branches.

    Args:
        dims: Width of each branch at this stage.
        pattern: Steps of edges between branches, see :mod:`piip_mm.models.directions`.
        **options: Options of every :class:`Injector`.
    """

    def __init__(self, dims: Sequence[int], pattern: Pattern, **options: Any) -> None:
        super().__init__()
        self.pattern = pattern
        self.injectors = nn.ModuleDict(
            {
                _edge_name(source, target): Injector(
                    dims[target], dims[source], **options
                )
                for step in pattern
                for source, target in step
            }
        )

    def forward(
        self, tokens: Sequence[Tensor], grids: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Exchange features.

        Args:
            tokens: Per branch (B, N_b, C_b).
            grids: Per branch (H_b, W_b).

        Returns:
            Per branch (B, N_b, C_b).
        """
        tokens = list(tokens)
        for step in self.pattern:
            # All edges of a step read the tokens as they were before the step.
            before = tuple(tokens)
            for source, target in step:
                injector: Any = self.injectors[_edge_name(source, target)]
                args = before[target], before[source], grids[target], grids[source]
                tokens[target] = (
                    recompute(injector, *args) if injector.with_cp else injector(*args)
                )
        return tokens


def _edge_name(source: int, target: int) -> str:
    return f'{source}_to_{target}'


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    """``gamma * x``; a scale that :func:`piip_mm.deploy.fuse` has folded is None."""
    return x if gamma is None else gamma * x


def _norm(norm: str | None, dims: int) -> nn.Module:
    return nn.Identity() if norm is None else nn.LayerNorm(dims, eps=1e-6)
