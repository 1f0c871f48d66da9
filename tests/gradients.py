"""Gradients of networks."""

import re

from torch import nn


def enliven(network: nn.Module) -> nn.Module:
    """Give random values to parameters that start at zero, which hide others: without
    them the interactions have no effect, for instance."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5)
    return network


def check_gradients(network: nn.Module, without: str = '(?!)') -> None:
    """Every parameter has a finite gradient that is not zero.

    Args:
        network: A network after a backward pass.
        without: Expression for the names of parameters whose gradient is zero.
    """
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert bool(parameter.grad.any()) != bool(re.fullmatch(without, name)), name
