"""The plot of benchmark results: which points, which lines, which words."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / 'tools/analysis_tools/plot_benchmark.py'


@pytest.fixture
def tool():
    spec = spec_from_file_location('plot_benchmark', TOOL)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(*runs, command='python benchmark.py a.py'):
    return dict(machine='machine', versions={'torch': '1'}, command=command, runs=runs)


def run(size, *, dtype='fp32', counted=True):
    row = dict(name='a, fused', shape=[size, size], branches=2, median=size / 1000)
    row['multiply_adds'] = size**2 * 10**9 if counted else None
    return dict(part='neck', mode='forward', batch_size=1, dtype=dtype, rows=[row])


def test_sizes_are_points_of_a_line(tool):
    lines = tool.read_lines({'x': report(run(20), run(10))})
    assert lines == {'a, fused (2 branches)': [(100, 10, '10'), (400, 20, '20')]}


def test_settings_that_differ_make_lines(tool):
    lines = tool.read_lines({'x': report(run(10)), 'y': report(run(10, dtype='bf16'))})
    assert sorted(lines) == [
        'a, fused (2 branches), dtype bf16',
        'a, fused (2 branches), dtype fp32',
    ]


def test_figure(tool):
    reports = {'x': report(run(20), run(10)), 'y': report(run(30), command='other')}
    captions = tool.captions(reports.values())
    assert captions == ['machine; torch 1', 'python benchmark.py a.py', 'other']
    figure = tool.plot(tool.read_lines(reports), captions)
    (axes,) = figure.axes
    (line,) = axes.lines
    assert list(line.get_ydata()) == [10, 20, 30]
    assert axes.get_xscale() == axes.get_yscale() == 'log'
    assert [text.get_text() for text in axes.texts] == ['10', '20', '30']
    assert figure.get_supxlabel() == '\n'.join(captions)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'No such file'),
        ('no JSON', 'not a file that benchmark.py'),
        ('{"runs": [{}]}', 'not a file that benchmark.py'),
        (json.dumps(report(run(10, counted=False))), 'no row has multiply-adds'),
    ],
)
def test_wrong_files(tool, monkeypatch, tmp_path, content, message):
    path = tmp_path / 'numbers.json'
    if content is not None:
        path.write_text(content)
    out = tmp_path / 'plot.png'
    monkeypatch.setattr(sys, 'argv', ['plot', str(path), '--out', str(out)])
    with pytest.raises(SystemExit, match=message):
        tool.main()
    assert not out.exists()
