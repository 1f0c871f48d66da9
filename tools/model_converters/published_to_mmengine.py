"""Converts a released checkpoint of the published PIIP code into one of MMEngine's.

Models load released files as they are; a converted one is smaller where the release holds
more than weights, and has the 'meta' that mmseg's functions want. Weights go from file to
file, so that a model of 24 GB needs no 24 GB of memory.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from mmengine.registry import MODELS, init_default_scope
from tqdm import tqdm

from piip_mm.engine.launch import read_config, user_errors
from piip_mm.published.checkpoints import convert_published, is_published
from piip_mm.weights.report import check_values, compare
from piip_mm.weights.source import errors_in, read_weights


def parse_args() -> argparse.Namespace:
    """Config, source and destination."""
    parser = argparse.ArgumentParser(
        description='Convert a released PIIP checkpoint to the names of this package'
    )
    parser.add_argument('config', help='config of the model')
    parser.add_argument('checkpoint', help='released file')
    parser.add_argument('out', help='file to write')
    return parser.parse_args()


def convert(config: str, checkpoint: str, out: Path) -> str:
    """Convert a file.

    Args:
        config: Config file of the model.
        checkpoint: Released file.
        out: File to write; nothing is left there if the conversion fails.

    Returns:
        What became of the tensors, in words.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the checkpoint is none of the published code or does not fit the
            model.
    """
    cfg = read_config(config, {})
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'there is no checkpoint {checkpoint!r}')
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    state_dict = read_weights(Path(checkpoint))
    if not is_published(state_dict):
        raise ValueError(
            f'{checkpoint} has none of the names of the published PIIP code; a '
            'checkpoint of this package needs no conversion'
        )
    with errors_in(checkpoint):
        converted, dropped = convert_published(state_dict, model)
        check_values(converted, model)
    fit = compare(converted, model, dropped)
    if fit.misfits:
        raise ValueError(f'{checkpoint} does not fit {config}: {fit}')
    size = sum(x.numel() * x.element_size() for x in converted.values())
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f'{out.name}.part')
    try:
        with (
            unfinished.open('wb') as file,
            tqdm.wrapattr(
                file,
                'write',
                total=size,
                unit='B',
                unit_scale=True,
                desc=str(out),
                mininterval=1,
            ) as progress,
        ):
            torch.save({'meta': {}, 'state_dict': converted}, progress)
        os.replace(unfinished, out)
    finally:
        unfinished.unlink(missing_ok=True)
    return str(fit)


def main() -> None:
    """Convert and report."""
    args = parse_args()
    with user_errors():
        report = convert(args.config, args.checkpoint, Path(args.out))
    print(report)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
