"""What tools/train.py and tools/test.py have in common."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from piip_mm.config_types import default_scope

from .checkpoint_hook import CheckpointError
from .custom_data import expand_custom_data
from .data_check import is_first_process

#: Errors of a checkpoint that a run loads.
CHECKPOINT_ERRORS = (CheckpointError,)
#: Errors of the config, its data and its files before a run.
INPUT_ERRORS = (OSError, ValueError)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that both tools take, as in mmdetection."""
    parser.add_argument('--work-dir', help='directory of logs, checkpoints and metrics')
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher; without a GPU "pytorch" runs the processes on the CPU',
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='compile blocks, interactions, merges, pyramid and neck with torch.compile: '
        'the first steps take minutes, the others less time',
    )
    # torch.distributed.launch passes the rank as an argument, torchrun by environment.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """The argument that overrides settings of a config, as in mmdetection."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='override settings of the config; the value may be a list like "[a,b]" or '
        'a,b, nested ones too: "[(a,b),(c,d)]" (with the quotation marks, without white '
        'space)',
    )


def add_shape(parser: argparse.ArgumentParser, default: str) -> None:
    """The size of the input.

    Args:
        parser: Parser of an analysis tool.
        default: What the size is without the argument, in words.
    """
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        action=_ShapeAction,
        metavar=('H', 'W'),
        help='height and width of the input in pixels, one value for a square; by '
        f'default {default}',
    )


class _ShapeAction(argparse.Action):
    """Stores (H, W)."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if len(values) > 2 or min(values) < 1:
            given = ' '.join(map(str, values))
            parser.error(f'--shape {given}: expected one or two positive numbers')
        setattr(namespace, self.dest, (values[0], values[-1]))


def positive(text: str) -> int:
    """Type of an argument: an integer above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r}: expected a positive number')
    return int(text)


def positive_number(text: str) -> float:
    """Type of an argument: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f'{text!r}: expected a positive number')
    return value


def read_config(path: str, options: Mapping[str, Any]) -> Config:
    """A config file with overrides, in which ``default_scope`` is set."""
    cfg = Config.fromfile(find_config(path))
    cfg.merge_from_dict(options)
    # Names that the tools add to a config of classes need it.
    cfg.default_scope = default_scope(cfg)
    return cfg


def load_config(args: argparse.Namespace) -> Config:
    """Config of a run: the file, the overrides, launcher, work directory, own data.

    Raises:
        FileNotFoundError: If the config or an annotation file that it needs is missing.
        ValueError: If its ``custom`` is wrong, see :func:`expand_custom_data`, or the
            launcher needs GPUs and there are none.
    """
    if args.launcher in ('slurm', 'mpi') and get_device() == 'cpu':
        raise ValueError(
            f'--launcher {args.launcher} needs GPUs, and PyTorch finds none here; on the '
            'CPU use --launcher pytorch (tools/dist_train.sh, tools/dist_test.sh)'
        )
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    # As in mmdetection: command line, then config, then the config's name.
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    expand_custom_data(cfg)
    return cfg


def shipped(name: str) -> Path:
    """The folder 'configs' or 'tools' of the installed package, or of the checkout."""
    package = Path(__file__).parents[1]
    folder = package / '.mim' / name
    return folder if folder.is_dir() else package.parent / name


def find_config(config: str) -> str:
    """Path of a config.

    Args:
        config: A path; or a config of this package by its name, 'piip_sbl_maskrcnn_1x',
            or in MMEngine's form, 'piip_mm::det/piip_sbl_maskrcnn_1x.py'.

    Raises:
        FileNotFoundError: If there is neither a file nor a config of that name; lists
            similar names.
    """
    if Path(config).is_file():
        return config
    name = Path(config.removeprefix('piip_mm::')).stem
    paths = {
        path.stem: str(path)
        for path in sorted(shipped('configs').rglob('*.py'))
        if '_base_' not in path.parts
    }
    if name in paths and (name == config or '::' in config):
        return paths[name]
    similar = ', '.join(get_close_matches(name, paths)) or 'none'
    raise FileNotFoundError(
        f'there is no config file {config!r} here and no config of that name in piip_mm; '
        f'similar names: {similar}'
    )


@contextmanager
def user_errors(kinds: tuple[type[Exception], ...] = INPUT_ERRORS) -> Iterator[None]:
    """End the program with the message alone, without a traceback, if the user's input is
    at fault.

    Of several processes only the first one prints the message.

    Args:
        kinds: Errors that stand for wrong input: :data:`INPUT_ERRORS` in the steps before
            a run, :data:`CHECKPOINT_ERRORS` within it, where others keep their traceback.
    """
    try:
        yield
    except kinds as error:
        raise SystemExit(f'error: {error}' if is_first_process() else 1) from None


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """MMEngine's wrapper on CPUs, where there are no device ids and no SyncBN."""

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        kwargs['device_ids'] = None
        super().__init__(revert_sync_batchnorm(module), **kwargs)


@contextmanager
def process_group(cfg: Config) -> Iterator[None]:
    """Let processes started by torchrun work together on machines without a GPU.

    MMEngine joins the processes itself where there is a GPU. Otherwise they are joined
    here with gloo, before the runner exists.
    """
    if cfg.launcher == 'none' or get_device() != 'cpu':
        yield
        return
    torch.distributed.init_process_group('gloo')
    wrapper = dict(
        type='CPUDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.setdefault('model_wrapper_cfg', wrapper)
    print_log(
        f'No GPU: {torch.distributed.get_world_size()} processes on the CPU, joined by '
        'gloo; SyncBN becomes BN, of the images of each process',
        logger='current',
    )
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
