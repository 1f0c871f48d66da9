"""The benchmark measures what it says, and its plain reference is the same network."""

import json
from pathlib import Path

import pytest
import torch
import zoo
from gradients import enliven
from test_fuse import BRANCHES, piip
from torch import nn

from piip_mm.analysis.memory import kept_for_backward, peak_memory
from piip_mm.analysis.plain import plain_reference
from piip_mm.analysis.subject import (
    Variant,
    build_model,
    build_subject,
    max_difference,
    scaled_shape,
)
from piip_mm.analysis.timing import Timing, alternate, timed_parts
from piip_mm.models.layers import SelfAttention, recompute

CPU = torch.device('cpu')
ROOT = Path(__file__).parents[1]
TINY = 'det/piip_tiny_maskrcnn_shapes.py'


@pytest.mark.parametrize('name', BRANCHES)
@pytest.mark.parametrize('size', [(96, 96), (101, 123), (64, 160)])
def test_plain_reference(name, size):
    network = piip(BRANCHES[name])
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        ours, plain = network(image), plain_reference(network)(image)
    for a, b in zip(ours, plain, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize('window_pad', ['zero_input', 'zero_qkv'])
@pytest.mark.parametrize('qkv_bias', [True, False])
@pytest.mark.parametrize('grid', [(6, 6), (8, 8), (4, 9), (3, 2), (8, 5)])
def test_one_key_stands_for_the_padding(grid, qkv_bias, window_pad):
    """Outputs and gradients of windows of 4 x 4, some of which are not full."""
    torch.manual_seed(0)
    norm = nn.RMSNorm if window_pad == 'zero_input' else None
    layer = SelfAttention(
        32, 4, qkv_bias=qkv_bias, qk_norm=norm, window_size=4, window_pad=window_pad
    ).double()
    enliven(layer)
    results = []
    for attention in (layer, plain_reference(layer)):
        x = torch.randn(2, grid[0] * grid[1], 32, generator=torch.manual_seed(1))
        x = x.double().requires_grad_()
        out = attention(x, grid)
        out.square().sum().backward()
        results.append([out, x.grad, *(p.grad.clone() for p in layer.parameters())])
        layer.zero_grad()
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain)


def test_parameters_are_shared():
    network = piip(BRANCHES['ViT'])
    ids = [id(p) for p in network.parameters()]
    assert [id(p) for p in plain_reference(network).parameters()] == ids


def test_variants_of_a_detector():
    cfg = zoo.load(TINY)
    model = build_model(cfg)
    variants = {
        name: build_subject(model, 'mmdet', Variant(part='neck', shape=(96, 128), **how))
        for name, how in dict(
            ours={}, plain=dict(plain=True), fused=dict(fused=True)
        ).items()
    }
    for subject in variants.values():
        assert max_difference(subject, variants['plain']) <= 1e-5
    assert variants['fused'].flops < variants['ours'].flops


@pytest.mark.parametrize(
    'name', [TINY, 'seg/piip_tiny_upernet_shapes.py', 'cls/piip_tiny_shapes.py']
)
@pytest.mark.parametrize('mode', ['forward', 'training'])
def test_whole_models(name, mode):
    cfg = zoo.load(name)
    variant = Variant(part='model', mode=mode, shape=(128, 128), batch_size=2)
    build_subject(build_model(cfg), cfg.default_scope, variant).step()


def test_a_fused_model_is_not_trained():
    with pytest.raises(ValueError, match='cannot be trained'):
        Variant(mode='training', fused=True)


def test_steps_alternate():
    order = []
    timings = alternate(
        [lambda: order.append('a'), lambda: order.append('b')], CPU, repeats=2, warmup=1
    )
    assert ''.join(order) == 'ababab'
    assert [len(timing.seconds) for timing in timings] == [2, 2]


def test_median_and_spread():
    timing = Timing([4.0, 1.0, 2.0, 3.0, 5.0])
    assert timing.median == 3.0
    # Quartiles 1.5 and 4.5.
    assert timing.spread == pytest.approx(0.5)


def test_peak_memory():
    """Three tensors of 4 MB, of which two exist at a time."""

    def step():
        a = torch.zeros(2**20)
        b = a + 1
        del a
        return b * 2

    step()
    assert peak_memory(step, CPU) == pytest.approx(2 * 2**22, rel=0.01)


@pytest.mark.parametrize('with_cp', [False, True])
def test_memory_kept_by_part(with_cp):
    """A linear layer keeps its input, a GELU its own; recomputed, both the first one."""
    layers = nn.Sequential(nn.Linear(8, 32), nn.GELU())
    x = torch.randn(4, 8, requires_grad=True)

    def step():
        out = recompute(layers, x) if with_cp else layers(x)
        out.sum().backward()

    parts = {'layers': [(layers, 'forward')], 'none': [(layers[0], 'extra_repr')]}
    kept = kept_for_backward(step, layers, parts, 'rest')
    inputs, hidden = 4 * 4 * 8, 4 * 4 * 32
    if with_cp:
        assert kept == {'layers': 0, 'none': 0, 'rest': inputs}
    else:
        assert kept == {'layers': inputs + hidden, 'none': 0, 'rest': 0}


def test_time_by_part():
    layer = nn.Linear(2, 2)
    with timed_parts({'layer': [(layer, 'forward')]}, CPU) as elapsed:
        layer(torch.zeros(2))
    assert list(elapsed) == ['layer'] and elapsed['layer'] > 0
    assert 'forward' not in vars(layer)


@pytest.mark.parametrize(
    ('shape', 'scale', 'expected'),
    [
        (None, 1.0, (320, 320)),
        (None, 0.42, (128, 128)),
        ((96, 200), 1.6, (160, 320)),
        (None, 0.01, (32, 32)),
    ],
)
def test_scaled_shape(shape, scale, expected):
    """Multiples of the 32 pixels that the config pads images to."""
    assert scaled_shape(zoo.built(TINY), shape, scale) == expected


def run(*args, tool='benchmark'):
    return zoo.run_analysis_tool(tool, *args)


def test_tool(tmp_path):
    out = tmp_path / 'numbers.json'
    config = ROOT / 'configs' / TINY
    options = ['--plain', '--fuse', '--shape', 96, '--repeats', 2, '--device', 'cpu']
    done = run(config, *options, '--breakdown', '--out', out)
    assert done.returncode == 0, done.stderr
    assert 'interactions' in done.stdout and 'of products' in done.stdout
    report = json.loads(out.read_text())
    assert {'machine', 'versions', 'command', 'runs'} == set(report)
    (measured,) = report['runs']
    names = [row['name'].partition(', ')[2] for row in measured['rows']]
    assert names == ['plain', '', 'fused']
    assert all(len(row['seconds']) == 2 for row in measured['rows'])
    assert max(measured['differences'].values()) < 2e-5


def test_tool_refuses_what_it_cannot_measure(tmp_path):
    config = ROOT / 'configs' / TINY
    assert 'cannot be trained' in run(config, '--fuse', '--mode', 'training').stderr
    assert 'positive' in run(config, '--batch-size', 0).stderr
    assert 'positive' in run(config, '--scale', 0.5, 'nan').stderr
    other = tmp_path / 'other.py'
    other.write_text(
        "default_scope = 'mmdet'; model = dict(backbone=dict(type='ResNet'))"
    )
    assert 'expected a PIIP or ViTPyramid' in run(other).stderr


def test_several_sizes_and_their_plot(tmp_path):
    numbers, image = tmp_path / 'numbers.json', tmp_path / 'plot.png'
    sizes = ['--shape', 96, 128, '--scale', 1, 0.7]
    common = ['--fuse', '--repeats', 1, '--device', 'cpu', '--out', numbers]
    done = run(ROOT / 'configs' / TINY, *sizes, *common)
    assert done.returncode == 0, done.stderr
    assert 'scale 0.7' in done.stdout
    rows = [row for r in json.loads(numbers.read_text())['runs'] for row in r['rows']]
    assert [row['shape'] for row in rows] == [[96, 128]] * 2 + [[64, 96]] * 2
    assert {(row['config'], row['branches']) for row in rows} == {(Path(TINY).stem, 3)}
    done = run(numbers, '--out', image, tool='plot_benchmark')
    assert done.returncode == 0, done.stderr
    assert image.read_bytes().startswith(b'\x89PNG')
