"""The benchmark of the sampling core runs the calls that the network makes."""

import json
import re
from pathlib import Path

import pytest
import torch
import zoo
from mmengine.registry import MODELS

from piip_mm.analysis import build_on_meta
from piip_mm.analysis.sampling import find_calls, random_call, run_calls
from piip_mm.models.layers import cross_attention

ROOT = Path(__file__).parents[1]
TINY = 'det/piip_tiny_maskrcnn_shapes.py'
CPU = torch.device('cpu')


def test_the_calls_are_those_of_the_network(monkeypatch):
    """Shapes and types of all arguments under autocast, and of the result."""
    found = []

    def record(value, grid, locations, weights, backend):
        tensors = (value, locations, weights)
        out = core(value, grid, locations, weights, backend)
        found.append([grid, *((x.shape, x.dtype) for x in (*tensors, out))])
        return out

    core = cross_attention.deformable_attention
    monkeypatch.setattr(cross_attention, 'deformable_attention', record)
    backbone = MODELS.build(zoo.load(TINY).model.backbone).eval()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        backbone(torch.randn(2, 3, 96, 128))
    monkeypatch.undo()
    shapes = find_calls(build_on_meta(zoo.load(TINY).model.backbone), (96, 128))
    calls = [random_call(shape, 2, torch.bfloat16, CPU) for shape in shapes]
    ours = [
        [call.value_grid]
        + [
            (x.shape, x.dtype)
            for x in (call.value, call.locations, call.weights, call.out_gradient)
        ]
        for call in calls
    ]
    assert ours == found


def test_bytes_of_a_call():
    (shape, *_) = find_calls(build_on_meta(zoo.load(TINY).model.backbone), (96, 128))
    call = random_call(shape, 1, torch.bfloat16, CPU)
    queries = shape.query_grid[0] * shape.query_grid[1]
    tokens = shape.value_grid[0] * shape.value_grid[1]
    inputs = 2 * tokens * shape.heads * shape.dims
    inputs += 4 * queries * shape.heads * shape.points * 3
    out = 2 * queries * shape.heads * shape.dims
    assert call.num_bytes('forward') == inputs + out
    assert call.num_bytes('training') == (inputs + out) + (inputs + out) + inputs
    for mode in ('forward', 'training'):
        run_calls([call], 'torch', mode)
    assert call.value.grad is None


def test_a_backbone_without_deformable_attention():
    backbone = build_on_meta(zoo.load('det/vit_b_maskrcnn_1x.py').model.backbone)
    with pytest.raises(ValueError, match='has no deformable attention; expected a PIIP'):
        find_calls(backbone, (64, 64))


def run(*args):
    return zoo.run_analysis_tool('benchmark_sampling', *args)


def test_tool(tmp_path):
    out = tmp_path / 'numbers.json'
    options = ['--shape', 64, 96, '--repeats', 2, '--device', 'cpu', '--out', out]
    done = run(ROOT / 'configs' / TINY, *options, '--dtype', 'fp32', 'bf16')
    assert done.returncode == 0, done.stderr
    assert 'of copies' in done.stdout
    report = json.loads(out.read_text())
    titles = [re.sub(r'^\d+ calls, ', '', run['title']) for run in report['runs']]
    assert titles == [
        f'{mode}, batch 1, {dtype}'
        for dtype in ('fp32', 'bf16')
        for mode in ('forward', 'training')
    ]
    for measured in report['runs']:
        (row,) = measured['rows']
        assert row['name'] == 'torch' and len(row['seconds']) == 2
        assert row['peak_bytes'] > 0 and measured['bytes'] > 0


def test_tool_refuses_a_file_in_no_folder(tmp_path):
    done = run(ROOT / 'configs' / TINY, '--out', tmp_path / 'no' / 'numbers.json')
    assert done.returncode == 2 and 'there is no such folder' in done.stderr
