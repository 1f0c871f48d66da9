"""Sampling core of deformable attention: PyTorch backend and choice of backends."""

import math
import sys

import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)

from piip_mm.models.layers import DeformableCrossAttention
from piip_mm.ops import check_backend, deformable_attention, runnable_backends
from piip_mm.ops.deform_attn import function, with_deformops, with_mmcv

ON_CUDA = {'mmcv': with_mmcv, 'deformops': with_deformops}


def cuda_backends():
    """Those other than 'torch', skipped where they cannot run."""
    for name, module in ON_CUDA.items():
        cuda = torch.cuda.is_available()
        reason = module.what_is_missing() if cuda else 'needs a CUDA device'
        yield pytest.param(name, marks=pytest.mark.skipif(bool(reason), reason=reason))


@pytest.fixture
def installed(monkeypatch):
    """Make the backends look as if these were installed."""

    def install(*names):
        for name, module in ON_CUDA.items():
            missing = '' if name in names else f'there is no {name}'
            monkeypatch.setattr(
                module, 'what_is_missing', lambda missing=missing: missing
            )
        function._select_once.cache_clear()

    yield install
    function._select_once.cache_clear()


def inputs(batch=2, heads=2, dims=3, queries=5, points=4, grid=(4, 6), **kwargs):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    value = random(batch, grid[0] * grid[1], heads, dims) - 0.5
    locations = random(batch, queries, heads, points, 2) * 1.6 - 0.3
    weights = random(batch, queries, heads, points).softmax(-1)
    return tuple(t.to(**kwargs).requires_grad_() for t in (value, locations, weights))


def naive(value, grid, locations, weights):
    """The equation, evaluated one sample at a time."""
    batch, _, heads, dims = value.shape
    height, width = grid
    out = torch.zeros(batch, locations.shape[1], heads, dims, dtype=value.dtype)
    for b, q, m, p in torch.cartesian_prod(
        *(torch.arange(n) for n in locations.shape[:4])
    ).tolist():
        x, y = (locations[b, q, m, p] * torch.tensor([width, height]) - 0.5).tolist()
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    sample = value[b, row * width + column, m]
                    out[b, q, m] += weights[b, q, m, p] * share * sample
    return out.flatten(2)


def test_torch_equals_a_loop():
    value, locations, weights = inputs()
    with torch.no_grad():
        out = deformable_attention(value, (4, 6), locations, weights, 'torch')
        torch.testing.assert_close(out, naive(value, (4, 6), locations, weights))


@pytest.mark.parametrize('batch', [1, 3])
def test_without_gradients_it_is_the_same(batch):
    """Then other operators run on the CPU."""
    tensors = inputs(batch)
    expected = deformable_attention(tensors[0], (4, 6), *tensors[1:])
    with torch.no_grad():
        ours = deformable_attention(tensors[0], (4, 6), *tensors[1:])
    torch.testing.assert_close(ours, expected)


@torch.no_grad()
def test_a_location_that_is_no_number_shows_in_the_result():
    value, locations, weights = inputs(1)
    locations[0, 1, 0, 0] = torch.nan
    missing = deformable_attention(value, (4, 6), locations, weights).isnan()
    assert missing[0, 1].any() and not missing[0, [0, 2, 3, 4]].any()


def test_gradcheck():
    value, locations, weights = inputs()
    assert torch.autograd.gradcheck(
        lambda *args: deformable_attention(args[0], (4, 6), *args[1:], 'torch'),
        (value, locations, weights),
    )


def test_samples_in_float32_whatever_the_value_is():
    value, locations, weights = inputs(dtype=torch.float32)
    exact = deformable_attention(value, (4, 6), locations, weights)
    rounded = value.bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        out = deformable_attention(rounded, (4, 6), locations, weights)
    assert out.dtype == torch.bfloat16
    reference = deformable_attention(rounded.float(), (4, 6), locations, weights)
    torch.testing.assert_close(out, reference.bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(out.float(), exact, rtol=0, atol=5e-3)


def test_offsets_keep_float32_under_autocast():
    module = DeformableCrossAttention(32, 32, num_heads=4)
    torch.nn.init.normal_(module.sampling_offsets.weight, std=0.5)
    query, feat = torch.randn(1, 16, 32), torch.randn(1, 100, 32)
    exact = module(query, feat, (4, 4), (10, 10))
    with torch.autocast('cpu', torch.bfloat16):
        out = module(query, feat, (4, 4), (10, 10))
    assert out.dtype == torch.bfloat16
    # With offsets rounded to bfloat16, the deviation would be 0.1 and more.
    assert (out - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize('num_heads', [4, 6, 8, 12])
def test_initial_offsets_lie_on_squares(num_heads):
    """Those of point p on the border of the square from -p - 1 to p + 1."""
    module = DeformableCrossAttention(48, 32, num_heads=num_heads, num_points=3)
    offsets = module.sampling_offsets.bias.view(num_heads, 3, 2)
    for head in range(num_heads):
        x, y = (f(2 * math.pi * head / num_heads) for f in (math.cos, math.sin))
        side = max(abs(x), abs(y))
        for point in range(3):
            expected = [(point + 1) * x / side, (point + 1) * y / side]
            found = offsets[head, point].tolist()
            assert found == pytest.approx(expected, abs=1e-5)
    if num_heads == 8:
        assert offsets[1, 0].tolist() == pytest.approx([1, 1])
    assert not module.sampling_offsets.weight.any()
    assert not module.attention_weights.weight.any()


def test_unknown_backend():
    with pytest.raises(
        ValueError, match=r"'cuda'; choose one of 'auto', 'mmcv', 'deformops', 'torch'"
    ):
        check_backend('cuda')


def test_mmcv_is_refused_without_cuda_operators(monkeypatch):
    monkeypatch.setattr('mmcv.ops.get_compiling_cuda_version', lambda: 'not available')
    with pytest.raises(
        RuntimeError,
        match=r"'mmcv' needs mmcv with compiled CUDA operators, but .*: not available; "
        r"install such a build. Otherwise use backend='auto' or 'torch'",
    ):
        check_backend('mmcv')


def test_deformops_is_refused_where_it_is_not_installed(monkeypatch):
    for name in ('deformops', 'deformops.registry'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        RuntimeError,
        match=r"'deformops' needs the package deformops, but deformops cannot be "
        r'imported \(.+\); (pip install deformops|it needs Python .+)\. Otherwise use '
        r"backend='auto' or 'torch'",
    ):
        check_backend('deformops')


@pytest.mark.parametrize(
    'python, pytorch, said',
    [
        ((3, 12), '2.11.0+cu130', 'pip install deformops'),
        ((3, 13), '2.15.0', 'pip install deformops'),
        ((3, 11), '2.13.0', 'but this is Python 3.11 with PyTorch 2.13.0'),
        ((3, 14), '2.15.0', 'it needs Python 3.12 or 3.13 and PyTorch 2.11 or newer'),
        ((3, 12), '2.10.1', 'but this is Python 3.12 with PyTorch 2.10.1'),
    ],
)
def test_the_advice_to_install_deformops(python, pytorch, said):
    assert said in with_deformops.how_to_install(python, pytorch)


@pytest.mark.parametrize('backend', ON_CUDA)
def test_operators_for_cuda_are_refused_on_the_cpu(installed, backend):
    installed(backend)
    value, locations, weights = inputs()
    with pytest.raises(
        ValueError, match=f"{backend!r} runs on CUDA tensors only, got one on 'cpu'"
    ):
        deformable_attention(value, (4, 6), locations, weights, backend)


@pytest.mark.parametrize(
    'device, names, chosen, said',
    [
        ('cuda', ['mmcv', 'deformops'], 'mmcv', "on cuda: 'mmcv' backend"),
        ('cuda', ['deformops'], 'deformops', "on cuda: 'deformops' backend"),
        (
            'cuda',
            [],
            'torch',
            "on cuda: 'torch' backend. Expected to be faster, but missing: 'mmcv': there "
            "is no mmcv. 'deformops': there is no deformops",
        ),
        ('cpu', ['mmcv', 'deformops'], 'torch', "on cpu: 'torch' backend"),
    ],
)
def test_the_choice_is_logged_once(monkeypatch, installed, device, names, chosen, said):
    messages = []
    monkeypatch.setattr(function, 'print_log', lambda m, logger: messages.append(m))
    installed(*names)
    assert [function._select('auto', device) for _ in range(3)] == [chosen] * 3
    assert messages == [f'Deformable attention {said}']
    on_device = names if device == 'cuda' else []
    assert runnable_backends(device) == [*on_device, 'torch']


@pytest.mark.parametrize('batch, step', [(1, 1), (7, 7), (64, 64), (65, 13), (67, 1)])
def test_the_kernel_s_step_divides_the_batch(batch, step):
    assert with_mmcv.im2col_step(batch) == step


def test_arguments_of_mmcv(monkeypatch):
    """mmcv's operator has a twin in PyTorch that takes the same arguments."""

    def twin(value, shapes, start, locations, weights, step):
        assert shapes.dtype == start.dtype == torch.long and start.tolist() == [0]
        return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)

    monkeypatch.setattr(MultiScaleDeformableAttnFunction, 'apply', twin)
    value, locations, weights = inputs()
    out = with_mmcv.sample(value, (4, 6), locations, weights)
    expected = deformable_attention(value, (4, 6), locations, weights, 'torch')
    torch.testing.assert_close(out, expected)


def results(backend, dtype, grid=(4, 6), **kwargs):
    """Output and gradients on CUDA; the weights are those of the type of the values."""
    wide = torch.promote_types(dtype, torch.float32)
    value, locations, weights = inputs(grid=grid, device='cuda', dtype=wide, **kwargs)
    rounded = weights.to(dtype).to(wide)
    out = deformable_attention(value.to(dtype), grid, locations, rounded, backend)
    assert out.dtype == dtype
    out.square().sum().backward()
    return [out, value.grad, locations.grad, weights.grad]


@pytest.mark.cuda
@pytest.mark.parametrize('backend', list(cuda_backends()))
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('batch, dims', [(1, 6), (3, 12), (65, 6), (2, 24), (2, 40)])
def test_operators_for_cuda_equal_torch(backend, dtype, batch, dims):
    """Forward and backward; 65 images cannot be processed in steps of 64."""
    shape = dict(batch=batch, heads=16, dims=dims, queries=35)
    ours, twins = (results(name, dtype, **shape) for name in (backend, 'torch'))
    # deformops multiplies and rounds in 16 bits where the others do not.
    tolerance = 2e-2 if dtype == torch.bfloat16 else 2e-4
    for a, b in zip(ours, twins, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.cuda
@pytest.mark.parametrize('backend', list(cuda_backends()))
def test_operators_for_cuda_compile(backend):
    """In one graph, as a whole network does."""
    value, locations, weights = inputs(device='cuda', dtype=torch.float32)
    compiled = torch.compile(deformable_attention, fullgraph=True)
    out = compiled(value, (4, 6), locations, weights, backend)
    expected = deformable_attention(value, (4, 6), locations, weights, 'torch')
    torch.testing.assert_close(out, expected, rtol=2e-4, atol=2e-4)
    out.sum().backward()
