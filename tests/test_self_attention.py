"""Windows and padding of self-attention."""

import pytest
import torch
from torch.nn.functional import pad

from piip_mm.models.layers import SelfAttention


def naive(module, x, grid):
    """Attention in zero-padded windows, one after the other, with an explicit softmax."""
    window, heads = module.window_size, module.num_heads
    height, width = grid
    x = x.unflatten(1, grid)
    x = pad(x, (0, 0, 0, -width % window, 0, -height % window))
    out = torch.zeros_like(x)
    for top in range(0, x.shape[1], window):
        for left in range(0, x.shape[2], window):
            tile = x[:, top : top + window, left : left + window].flatten(1, 2)
            q, k, v = module.qkv(tile).chunk(3, -1)
            q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
            tile = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
            out[:, top : top + window, left : left + window] = tile.unflatten(
                1, (window, window)
            )
    return module.proj(out[:, :height, :width].flatten(1, 2))


@pytest.mark.parametrize('grid', [(8, 4), (5, 7), (3, 2)])
@pytest.mark.parametrize('qkv_bias', [True, False])
def test_windows_equal_a_loop(grid, qkv_bias):
    module = SelfAttention(12, 3, window_size=4, qkv_bias=qkv_bias).double()
    x = torch.randn(2, grid[0] * grid[1], 12, dtype=torch.float64)
    torch.testing.assert_close(module(x, grid), naive(module, x, grid))


def test_one_full_window_equals_global_attention():
    windowed = SelfAttention(12, 3, window_size=6)
    everywhere = SelfAttention(12, 3)
    everywhere.load_state_dict(windowed.state_dict())
    x = torch.randn(2, 36, 12)
    torch.testing.assert_close(windowed(x, (6, 6)), everywhere(x, (6, 6)))


def test_padded_tokens_take_part_in_the_softmax():
    module = SelfAttention(12, 3, window_size=8)
    everywhere = SelfAttention(12, 3)
    everywhere.load_state_dict(module.state_dict())
    torch.nn.init.normal_(module.qkv.bias)
    everywhere.qkv.bias = module.qkv.bias
    x = torch.randn(1, 36, 12)
    assert (module(x, (6, 6)) - everywhere(x, (6, 6))).abs().max() > 1e-3


def test_errors():
    with pytest.raises(ValueError, match=r'width 10 is not divisible by num_heads 3'):
        SelfAttention(10, 3)
    with pytest.raises(ValueError, match=r"'edge'; choose one of 'zero_input', 'zero_q"):
        SelfAttention(12, 3, window_pad='edge')
    with pytest.raises(ValueError, match=r'window_size=0: expected an integer of at'):
        SelfAttention(12, 3, window_size=0)
