"""The table of published detectors and the file it is made from."""

import importlib.util
from math import ceil, floor
from pathlib import Path

import pytest
import zoo
from mmengine.fileio import load

MODELS = {
    model['Config'].removeprefix('configs/'): model
    for model in load(zoo.ROOT / 'configs/det/metafile.yml')['Models']
}


@pytest.fixture(scope='module')
def tool():
    path = zoo.ROOT / 'tools/misc/make_zoo_table.py'
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def table(tool):
    return tool.make_table(list(MODELS.values()))


def test_metafile_names_every_published_detector():
    assert set(MODELS) == {*zoo.PUBLISHED, *zoo.PAPER_ONLY}
    assert all(model['Name'] == Path(name).stem for name, model in MODELS.items())


@pytest.mark.parametrize('name', MODELS)
def test_metafile_agrees_with_the_config(name):
    model, cfg = MODELS[name], zoo.load(name)
    metadata = model['Metadata']
    assert metadata['Epochs'] == cfg.train_cfg.max_epochs
    if 'Weights' in model:
        assert Path(model['Weights']).name == f'{zoo.PUBLISHED[name]}.pth'
    tasks = [result['Task'] for result in model.get('Results', ())]
    both = ['Object Detection', 'Instance Segmentation']
    assert tasks in ([], both[: 1 if '_dino_' in name else 2])
    backbone = cfg.model.backbone
    branches = backbone.get('branches') or [backbone.branch]
    if not zoo.is_as_released(name):
        assert metadata['Architecture'] == architecture([b.arch for b in branches])


def architecture(archs):
    """A network's name in the papers: sizes, and kinds if some branches are ConvNeXts."""
    sizes = [arch.rpartition('_')[2] for arch in archs]
    letters = [size.upper() if size == '6b' else size[0].upper() for size in sizes]
    kinds = ['C' if arch.startswith('convnext') else 'V' for arch in archs]
    if len(archs) == 1:
        kind = 'ConvNeXt' if kinds == ['C'] else 'ViT'
        return f'{"InternViT" if letters == ["6B"] else kind}-{letters[0]}'
    if 'C' not in kinds:
        return f'PIIP-{"".join(letters)}'
    return '-'.join(['PIIP', *map(''.join, zip(kinds, letters, strict=True))])


def test_where_published_ap_comes_from():
    """AP is that of released weights unless the metafile names another source;
    PIIP-LH6B and the intended PIIP-TSBL have none."""
    for name, model in MODELS.items():
        source = model['Metadata'].get('AP from')
        assert ('Weights' in model) == ('Results' in model and source is None)
        assert (source == 'paper') == (name in zoo.PAPER_ONLY)
    without = {name for name, model in MODELS.items() if 'Results' not in model}
    assert without == {
        *(name for name in zoo.PUBLISHED if 'lh6b' in name),
        *(n for n in zoo.PUBLISHED if '_tsbl_' in n and not zoo.is_as_released(n)),
    }
    sources = [model['Metadata'].get('AP from') for model in MODELS.values()]
    assert (sources.count('config'), sources.count('paper')) == (7, 3)


def test_counts_are_the_published_ones(table):
    cells = {}
    for line in table.splitlines():
        for name in MODELS:
            if f'](../configs/{name})' in line:
                cells[name] = line.split(' | ')[7]
    assert set(cells) == set(MODELS)
    with_flops = with_params = 0
    for name, model in MODELS.items():
        metadata = model['Metadata']
        if 'FLOPs (G)' not in metadata:
            continue
        with_flops += 1
        params, flops = cells[name].removesuffix('G').split('M, ')
        if 'Parameters (M)' in metadata:
            with_params += 1
            assert int(params) == metadata['Parameters (M)']
        # See zoo.ROUNDING.
        expected = {floor: int(flops) - 1, ceil: int(flops) + 1}
        assert metadata['FLOPs (G)'] == expected.get(zoo.ROUNDING.get(name), int(flops))
    assert (with_flops, with_params) == (24, 16)


def test_row(tool):
    cells = tool.make_row(MODELS['det/piip_tsb_maskrcnn_1x_1120-896-448.py'])
    checkpoint = 'mask_rcnn_deit_tsb_1120_896_448_fpn_1x_coco_bs16.pth'
    url = f'https://huggingface.co/OpenGVLab/PIIP/resolve/main/detection/{checkpoint}'
    assert cells.strip('|\n').split('|') == [
        ' PIIP-TSB ',
        ' DeiT (T), DeiT III (S, B) ',
        ' Mask R-CNN ',
        ' 12 ',
        ' 1120/896/448 ',
        ' 43.6 ',
        ' 38.7 ',
        ' 146M, 243G ',
        ' 175M, 307G ',
        ' [`piip_tsb_maskrcnn_1x_1120-896-448`]'
        '(../configs/det/piip_tsb_maskrcnn_1x_1120-896-448.py) ',
        f' [`{checkpoint}`]({url}) ',
    ]


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('piip_sbl_cascade_3x', ['Cascade Mask R-CNN', '36', '54.5 ‡', '47.7 ‡']),
        ('convnext_b_maskrcnn_1x', ['Mask R-CNN', '12', '42.4 †', '38.7 †']),
        ('piip_h6b_dino_1x_1024-768', ['DINO', '12', '60.0', '—']),
    ],
)
def test_row_of_another_kind(tool, name, expected):
    cells = tool.make_row(MODELS[f'det/{name}.py']).strip('|\n').split(' | ')
    assert [cells[2], cells[3], cells[5], cells[6]] == expected


def test_pretraining_of_a_row(tool):
    assert tool.format_pretraining(['augreg_small', 'augreg_base']) == 'AugReg'
    archs = ['mae_huge', 'internvit_6b']
    assert tool.format_pretraining(archs) == 'MAE (H), InternVL (6B)'


def test_table_in_the_docs_is_current(tool, table):
    before, after = tool.split_at_markers((zoo.ROOT / 'docs/model_zoo.md').read_text())
    assert before + table + after == (zoo.ROOT / 'docs/model_zoo.md').read_text(), (
        'run python tools/misc/make_zoo_table.py'
    )


def test_stale_table(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, 'make_table', lambda models: 'new\n')
    readme = tmp_path / 'README.md'
    stale = '# Title\n<!-- zoo:begin -->\nold\n<!-- zoo:end -->\n# End\n'
    readme.write_text(stale)
    with pytest.raises(SystemExit, match=r'table of models is stale; run python tools'):
        tool.main(['--file', str(readme), '--check'])
    assert readme.read_text() == stale
    tool.main(['--file', str(readme)])
    assert readme.read_text() == stale.replace('old', 'new')
    tool.main(['--file', str(readme), '--check'])


@pytest.mark.parametrize(
    'text',
    [
        '',
        '<!-- zoo:begin -->',
        '<!-- zoo:end --><!-- zoo:begin -->',
        '<!-- zoo:begin --><!-- zoo:begin --><!-- zoo:end -->',
    ],
)
def test_missing_markers(tool, text):
    with pytest.raises(ValueError, match=r'expected the lines <!-- zoo:begin --> and'):
        tool.split_at_markers(text)
