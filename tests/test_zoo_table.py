"""The table of published detectors and the file it is made from."""

import importlib.util
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
    assert set(MODELS) == set(zoo.PUBLISHED)
    assert all(model['Name'] == Path(name).stem for name, model in MODELS.items())


@pytest.mark.parametrize('name', MODELS)
def test_metafile_agrees_with_the_config(name):
    model, cfg = MODELS[name], zoo.load(name)
    metadata = model['Metadata']
    assert metadata['Epochs'] == cfg.train_cfg.max_epochs
    # Published AP belongs to released weights, and the intended PIIP-TSBL has none.
    is_intended_tsbl = 'tsbl' in name and not zoo.is_as_released(name)
    assert ('Weights' in model) == ('Results' in model) == (not is_intended_tsbl)
    if 'Weights' in model:
        assert Path(model['Weights']).name == f'{zoo.checkpoint_of(name)}.pth'
    backbone = cfg.model.backbone
    branches = backbone.get('branches') or [backbone.branch]
    letters = ''.join(branch.arch.split('_')[1][0].upper() for branch in branches)
    if not zoo.is_as_released(name):
        prefix = 'PIIP' if len(branches) > 1 else 'ViT'
        assert metadata['Architecture'] == f'{prefix}-{letters}'


def test_counts_are_the_published_ones(table):
    lines = {name: line for line in table.splitlines() for name in MODELS if name in line}
    assert set(lines) == set(MODELS)
    published = 0
    for name, model in MODELS.items():
        metadata = model['Metadata']
        if 'FLOPs (G)' in metadata:
            counts = f'{metadata["Parameters (M)"]}M, {metadata["FLOPs (G)"]}G'
            assert lines[name].split(' | ')[4] == counts
            published += 1
    assert published == 11


def test_row(tool):
    cells = tool.make_row(MODELS['det/piip_tsb_maskrcnn_1x_1120-896-448.py'])
    checkpoint = 'mask_rcnn_deit_tsb_1120_896_448_fpn_1x_coco_bs16.pth'
    url = f'https://huggingface.co/OpenGVLab/PIIP/resolve/main/detection/{checkpoint}'
    assert cells.strip('|\n').split('|') == [
        ' PIIP-TSB ',
        ' 1120/896/448 ',
        ' 43.6 ',
        ' 38.7 ',
        ' 146M, 243G ',
        ' 175M, 307G ',
        ' [`piip_tsb_maskrcnn_1x_1120-896-448`]'
        '(configs/det/piip_tsb_maskrcnn_1x_1120-896-448.py) ',
        f' [`{checkpoint}`]({url}) ',
    ]


def test_table_in_the_readme_is_current(tool, table):
    before, after = tool.split_at_markers((zoo.ROOT / 'README.md').read_text())
    assert before + table + after == (zoo.ROOT / 'README.md').read_text(), (
        'run python tools/misc/make_zoo_table.py'
    )


def test_stale_table(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, 'make_table', lambda models: 'new\n')
    readme = tmp_path / 'README.md'
    stale = '# Title\n<!-- zoo:begin -->\nold\n<!-- zoo:end -->\n# End\n'
    readme.write_text(stale)
    with pytest.raises(SystemExit, match=r'table of models is stale; run python tools'):
        tool.main(['--readme', str(readme), '--check'])
    assert readme.read_text() == stale
    tool.main(['--readme', str(readme)])
    assert readme.read_text() == stale.replace('old', 'new')
    tool.main(['--readme', str(readme), '--check'])


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
