"""Focal loss (arXiv 1708.02002)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Loss of every score, with p = sigmoid(input)::

        -alpha * (1 - p)^gamma * log(p)          for the target's class
        -(1 - alpha) * p^gamma * log(1 - p)      for the others

    Args:
        input: (N, K) scores before the sigmoid.
        target: (N,) classes; K is the background.
        weight: (K,) factor of each target's class, or empty.
        output: (N, K), written in place.
        gamma: Focusing parameter.
        alpha: Weight of the target's class.
    """
    x, is_target = _focal_inputs(input, target)
    positive = -alpha * (-x).sigmoid() ** gamma * F.logsigmoid(x)
    negative = -(1 - alpha) * x.sigmoid() ** gamma * F.logsigmoid(-x)
    output.copy_(torch.where(is_target, positive, negative))
    _weigh(output, target, weight)


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of :func:`sigmoid_focal_loss_forward` with respect to the
    scores to ``grad_input`` (N, K); the other arguments are those of the forward pass."""
    x, is_target = _focal_inputs(input, target)
    p, q = x.sigmoid(), (-x).sigmoid()
    positive = -alpha * q**gamma * (q - gamma * p * F.logsigmoid(x))
    negative = -(1 - alpha) * p**gamma * (gamma * q * F.logsigmoid(-x) - p)
    grad_input.copy_(torch.where(is_target, positive, negative))
    _weigh(grad_input, target, weight)


def _focal_inputs(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scores in float32, and whether a column is the target's class."""
    columns = torch.arange(input.shape[1], device=input.device)
    return input.float(), target[:, None] == columns


def _weigh(values: Tensor, target: Tensor, weight: Tensor) -> None:
    if weight.numel():
        values *= weight[target][:, None]
