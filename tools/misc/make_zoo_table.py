"""Write the table of published detectors into docs/model_zoo.md.

The rows come from configs/det/metafile.yml (published AP, released checkpoints) and from
the configs (sizes, parameters, FLOPs).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import load
from mmengine.utils import track_iter_progress

from piip_mm.analysis import PUBLISHED, RELEASED, build_on_meta, count_backbone, total

ROOT = Path(__file__).parents[2]
METAFILE = ROOT / 'configs/det/metafile.yml'
BEGIN, END = '<!-- zoo:begin -->', '<!-- zoo:end -->'
MISSING = '—'

COLUMNS = (
    'backbone',
    'pretrained',
    'detector',
    'epochs',
    'resolution',
    'box AP',
    'mask AP',
    '#Param, #FLOPs in the published convention',
    'as released',
    'config',
    'released checkpoint',
)
NOTES = """
COCO val2017. AP is what the authors published for the released checkpoint of the row; †:
printed next to a config, without a checkpoint; ‡: in the paper, without a config (our
config says which of its settings are ours). The counts (1 FLOP = 1 multiply-add) are of
the backbone, measured on the model that the config builds: in the convention of the
published table, and of the backbone of the released checkpoints. For ConvNeXt branches
the published table contains the latter, truncated.

PIIP-TSBL was released with a slip: the branch meant to be DeiT tiny has the width of DeiT
small. The rows 'as released' fit these checkpoints and count the network that was built.
The rows above them are the intended networks, to which the published counts belong.
"""
DETECTORS = {
    'MaskRCNN': 'Mask R-CNN',
    'CascadeRCNN': 'Cascade Mask R-CNN',
    'DINO': 'DINO',
}
#: Pretraining by the family in the name of an architecture.
FAMILIES = {
    'augreg': 'AugReg',
    'beitv2': 'BEiT v2',
    'convnext': 'ConvNeXt',
    'deit': 'DeiT',
    'deit3': 'DeiT III',
    'dinov2': 'DINOv2',
    'internvit': 'InternVL',
    'mae': 'MAE',
    'uniperceiver': 'Uni-Perceiver',
}
#: Marks of AP that belongs to no released checkpoint, by 'AP from' of the metafile.
MARKS = {None: '', 'config': ' †', 'paper': ' ‡'}


def main(argv: Sequence[str] | None = None) -> None:
    """Rewrite the table between the markers, or check it."""
    args = parse_args(argv)
    text = args.file.read_text(encoding='utf-8')
    try:
        before, after = split_at_markers(text)
    except ValueError as error:
        sys.exit(f'{args.file}: {error}')
    new = before + make_table(load(METAFILE)['Models']) + after
    if not args.check:
        args.file.write_text(new, encoding='utf-8')
    elif new != text:
        sys.exit(
            f'{args.file}: the table of models is stale; run '
            'python tools/misc/make_zoo_table.py'
        )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--file', type=Path, default=ROOT / 'docs/model_zoo.md', help='file to rewrite'
    )
    parser.add_argument(
        '--check', action='store_true', help='change nothing, fail if the table is stale'
    )
    return parser.parse_args(argv)


def split_at_markers(text: str) -> tuple[str, str]:
    """The text up to and with the first marker, and from the second one on.

    Raises:
        ValueError: If the markers are not there exactly once, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise ValueError(f'expected the lines {BEGIN} and {END} once, in this order')
    return f'{before}{BEGIN}\n', f'{END}{after}'


def make_table(models: list[dict[str, Any]]) -> str:
    """The table in Markdown, one row for each entry of the metafile."""
    rows = [make_row(model) for model in track_iter_progress(models, file=sys.stderr)]
    header = [make_line(COLUMNS), make_line(['---'] * len(COLUMNS))]
    return ''.join([*header, *rows]) + NOTES


def make_row(model: Mapping[str, Any]) -> str:
    """A row of the table."""
    detector = Config.fromfile(ROOT / model['Config']).model
    backbone = detector.backbone
    branches = backbone.get('branches') or [backbone.branch]
    metrics: dict[str, float] = {}
    for result in model.get('Results', ()):
        metrics |= result['Metrics']
    published, released = format_counts(backbone)
    config, weights = Path(model['Config']), model.get('Weights')
    metadata = model['Metadata']
    mark = MARKS[metadata.get('AP from')]
    cells = (
        metadata['Architecture'],
        format_pretraining([branch.arch for branch in branches]),
        DETECTORS[detector.type],
        str(metadata['Epochs']),
        '/'.join(str(branch.img_size) for branch in branches),
        format_ap(metrics.get('box AP'), mark),
        format_ap(metrics.get('mask AP'), mark),
        published,
        released,
        f'[`{config.stem}`](../{config.as_posix()})',
        f'[`{Path(weights).name}`]({weights})' if weights else MISSING,
    )
    return make_line(cells)


def make_line(cells: Sequence[str]) -> str:
    """A line of the table."""
    return f'| {" | ".join(cells)} |\n'


def format_counts(backbone: Mapping[str, Any]) -> list[str]:
    """Parameters and FLOPs of a backbone, as published and as released."""
    counts = count_backbone(build_on_meta(backbone))
    sums = (total(counts[column]) for column in (PUBLISHED, RELEASED))
    return [f'{s.params / 1e6:.0f}M, {s.flops / 1e9:.0f}G' for s in sums]


def format_pretraining(archs: Sequence[str]) -> str:
    """Families of the branches, with the sizes of each where there are several."""
    sizes: dict[str, list[str]] = {}
    for arch in archs:
        family, _, size = arch.partition('_')
        sizes.setdefault(FAMILIES[family], []).append(
            size[: 2 if size == '6b' else 1].upper()
        )
    if len(sizes) == 1:
        return next(iter(sizes))
    return ', '.join(f'{family} ({", ".join(of)})' for family, of in sizes.items())


def format_ap(value: float | None, mark: str) -> str:
    """An AP with one decimal and its mark, or a dash."""
    return MISSING if value is None else f'{value:.1f}{mark}'


if __name__ == '__main__':
    main()
