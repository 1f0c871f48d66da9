"""tools/analysis_tools/get_flops.py as a user meets it, and the counts of the heads."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope, init_default_scope
from torch import nn

from piip_mm.analysis import Count, build_on_meta, count_backbone, count_heads, total

ROOT = Path(__file__).parents[1]
TOOL = ROOT / 'tools/analysis_tools/get_flops.py'
SBL = ROOT / 'configs/det/piip_sbl_maskrcnn_1x.py'
TINY = ROOT / 'configs/det/piip_tiny_maskrcnn_shapes.py'
UPERNET = ROOT / 'configs/seg/piip_tiny_upernet_shapes.py'


@pytest.fixture
def mmdet_scope():
    yield init_default_scope('mmdet')
    DefaultScope._instance_dict.clear()


@pytest.fixture
def get_flops(monkeypatch, capsys):
    """Run the tool in this process; returns its lines."""

    def run(*arguments):
        spec = spec_from_file_location('get_flops', TOOL)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', ['get_flops.py', *map(str, arguments)])
        try:
            module.main()
        finally:
            # It would be the current one of the tests that follow.
            MMLogger._instance_dict.pop('get_flops', None)
        return capsys.readouterr().out.splitlines()

    yield run
    DefaultScope._instance_dict.clear()


def row(lines, name, table='backbone'):
    """Cells of the first row of a name in a table, or in those that follow."""
    words = [line.split() for line in lines]
    start = next(i for i, line in enumerate(words) if line[:1] == [table])
    size = len(name.split())
    found = next(line for line in words[start:] if line[:size] == name.split())
    return found[size:]


def test_published_numbers_are_printed(get_flops):
    lines = get_flops(SBL)
    assert lines[0] == f'{SBL}, input 1568 x 1568 (H x W)'
    published, released = ['497,892,331', '1,709.025'], ['547,810,051', '2,105.236']
    assert row(lines, 'total')[:4] == published + released
    assert row(lines, 'branch 2')[:2] == ['304,952,320', '534.273']
    assert row(lines, 'classifier')[2:] == ['-'] * 4
    assert row(lines, 'pyramid')[:4] == ['-', '-', '12,588,032', '0.000']
    assert row(lines, 'bbox_head')[2:] == ['1000', 'proposals']
    text = ' '.join(' '.join(lines).split())
    assert '1 FLOP = 1 multiply-add.' in text
    for column in ('published', 'released', 'run'):
        assert f'as {column}: ' in text


def test_activations(get_flops):
    """They grow with the image, and checkpointing leaves little of the interactions'."""

    def kept(*arguments):
        lines = get_flops(TINY, *arguments)
        cells = [row(lines, name, 'kept')[0] for name in ('interactions', 'total')]
        return [int(cell.replace(',', '')) for cell in cells]

    small, large = kept('--shape', '320'), kept('--shape', '640')
    assert 3.8 < large[0] / small[0] < 4.2
    option = 'model.backbone.interaction.with_cp=True'
    saving = kept('--shape', '640', '--cfg-options', option)
    assert saving[0] < 0.2 * large[0]
    assert large[1] - saving[1] == pytest.approx(large[0] - saving[0], abs=2)


@pytest.mark.parametrize(
    ('arguments', 'shape'), [(['160', '224'], (160, 224)), (['160'], (160, 160))]
)
def test_shape(arguments, shape, get_flops):
    lines = get_flops(TINY, '--shape', *arguments)
    assert f'input {shape[0]} x {shape[1]} (H x W)' in lines[0]
    backbone = build_on_meta(Config.fromfile(TINY).model.backbone)
    counted = total(count_backbone(backbone, shape)['as run'])
    assert row(lines, 'total')[4:] == [
        f'{counted.params:,}',
        f'{counted.flops / 1e9:,.3f}',
    ]


@pytest.mark.parametrize(
    ('config', 'reader', 'out_dims'),
    [(TINY, 'neck', 64), (UPERNET, 'decode_head', 48)],
)
def test_fused(config, reader, out_dims, get_flops):
    lines = get_flops(config, '--shape', '640')
    run, fused = (
        float(row(lines, 'total', 'fused')[index].replace(',', '')) for index in (1, 3)
    )
    # One level is upsampled, by 2: the product at full width and its bias are saved.
    num_values, dims = 4 * 80 * 80, 96
    saved = num_values * (dims**2 + dims - out_dims)
    assert run - fused == pytest.approx(saved / 1e9, abs=1.1e-3)
    for part in ('pyramid', reader):
        before, after = (float(row(lines, part, 'fused')[index]) for index in (1, 3))
        assert after < before
    assert 'fused: as run, after piip_mm.deploy.fuse' in ' '.join(lines)


def test_cfg_options(get_flops):
    lines = get_flops(TINY, '--cfg-options', 'model.backbone.num_interactions=0')
    assert row(lines, 'interactions') == ['0', '0.000'] * 3


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--shape', '8', '96'], r'error: branch 0 sees the 8 x 96 input .* at least 16'),
        (
            ['--cfg-options', 'model.backbone.type=ResNet'],
            r"error: cannot count a backbone of type 'ResNet'; supported: PIIP, ViTPyr",
        ),
        (
            ['--cfg-options', 'model.backbone.branches.0.arch=deit_huge'],
            r"error: .*unknown arch 'deit_huge'; choose one of",
        ),
    ],
)
def test_errors_are_one_line(arguments, message, get_flops):
    with pytest.raises(SystemExit, match=message):
        get_flops(TINY, *arguments)


def test_config_without_a_model(tmp_path, get_flops):
    config = tmp_path / 'empty.py'
    config.write_text("default_scope = 'mmdet'\n")
    with pytest.raises(SystemExit, match=r'error: .*empty\.py has no model\.backbone'):
        get_flops(config)


@pytest.mark.parametrize('shape', [['1', '2', '3'], ['0'], ['-4', '4']])
def test_wrong_shapes(shape, get_flops, capsys):
    with pytest.raises(SystemExit):
        get_flops(TINY, '--shape', *shape)
    assert 'expected one or two positive numbers' in capsys.readouterr().err


def conv(size, in_channels, out_channels, kernel=3):
    return size[0] * size[1] * in_channels * out_channels * kernel**2


def test_heads_of_mask_rcnn(mmdet_scope):
    """The published neck and heads on maps of 64 channels, by hand."""
    cfg = Config.fromfile(TINY).model
    heads = count_heads(build_on_meta(cfg), (160, 224))
    assert [(name, remark) for name, (_, remark) in heads.items()] == [
        ('neck', ''),
        ('rpn_head', ''),
        ('bbox_head', f'{cfg.test_cfg.rpn.max_per_img} proposals'),
        ('mask_head', f'{cfg.test_cfg.rcnn.max_per_img} detections'),
    ]
    levels = [(40, 56), (20, 28), (10, 14)]
    neck = sum(conv(size, 96, 64, 1) + conv(size, 64, 64) for size in levels)
    assert heads['neck'][0] == Count(3 * (97 * 64 + (9 * 64 + 1) * 64), neck)
    # Three anchors a place: 3 scores and 12 deltas.
    rpn = [conv(size, 64, 64) + conv(size, 64, 15, 1) for size in [*levels, (5, 7)]]
    assert heads['rpn_head'][0].flops == sum(rpn)
    # Classes and background, and deltas of each class.
    classes = cfg.roi_head.bbox_head.num_classes
    linear = 49 * 64 * 256 + 256 * 256 + 256 * (5 * classes + 1)
    assert heads['bbox_head'][0].flops == cfg.test_cfg.rpn.max_per_img * linear
    mask = 2 * conv((14, 14), 64, 64) + conv((14, 14), 64, 64, 2)
    mask += conv((28, 28), 64, classes, 1)
    assert heads['mask_head'][0].flops == cfg.test_cfg.rcnn.max_per_img * mask


def test_parts_without_a_rule_are_named(mmdet_scope):
    model = build_on_meta(Config.fromfile(TINY).model)
    model.decoder = nn.Linear(2, 3)
    counted = count_heads(model, (160, 224))['decoder']
    assert counted == (Count(params=9), 'FLOPs not counted: no rule for this part')
