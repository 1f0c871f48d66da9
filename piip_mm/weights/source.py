"""Where pretrained weights come from: local files, URLs, timm."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlparse
from zipfile import BadZipFile, is_zipfile

import timm
import torch
from filelock import FileLock
from mmengine.logging import print_log
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .augreg import read_augreg
from .state_dict import STATE_DICT_ALONE, unwrap_state_dict

TIMM_PREFIX = 'timm://'

_DEIT = 'https://dl.fbaipublicfiles.com/deit/'
# Download folders of the files that the configs name.
_DOWNLOADS = {
    'deit_tiny_patch16_224-a1311bcf.pth': _DEIT,
    'deit_3_small_224_21k.pth': _DEIT,
    'deit_3_base_224_21k.pth': _DEIT,
    'deit_3_large_224_21k.pth': _DEIT,
}
#: Errors of the libraries that read the files.
_DAMAGE = (
    BadZipFile,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    SafetensorError,
    UnpicklingError,
    zlib.error,
)


class DamagedFileError(ValueError):
    """A file of weights that cannot be read."""


@contextmanager
def errors_in(origin: str) -> Iterator[None]:
    """Name the file in errors about its content."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ValueError(f'{origin}: {error}') from error


def check_location(option: str, location: object) -> str:
    """The location of a file as text; raise ``ValueError`` if it can be none."""
    if isinstance(location, os.PathLike):
        location = os.fspath(location)
    if not isinstance(location, str) or not location:
        raise ValueError(
            f'{option}={location!r}: expected a path, a URL or timm://MODEL; set one, or '
            'init_cfg=None for random weights'
        )
    return location


def where_to_get(path: str) -> str:
    """Instructions for getting a file of pretrained weights."""
    name = Path(path).name
    if name in _DOWNLOADS:
        url = _DOWNLOADS[name] + name
        return f'download it from {url}, or set init_cfg.checkpoint to this URL'
    return (
        'put the file there, or set init_cfg.checkpoint to a path, a URL or timm://MODEL'
    )


def load_weights(location: str | os.PathLike) -> dict[str, Tensor]:
    """Read pretrained weights, without executing anything from the file.

    Downloads show their progress, are kept in PyTorch's hub folder (``TORCH_HOME``), are
    verified if the file name contains a checksum (``name-1a2b3c4d.pth``), and leave
    nothing behind when they are interrupted. Of several processes, on one node or on
    several that share the folder, one downloads a file and the others wait for it.

    Args:
        location: A local path or a URL of a PyTorch file, a safetensors file or one of
            AugReg's ``.npz`` files; or ``timm://MODEL`` with the name of a timm model.

    Raises:
        FileNotFoundError: If a local file does not exist.
        ConnectionError: If a download fails.
        ValueError: If timm has no such model or no weights for it, a download does not
            match the checksum in its name, or a file is damaged or holds other things
            than weights.
    """
    location = check_location('init_cfg.checkpoint', location)
    if location.startswith(TIMM_PREFIX):
        return _from_timm(location.removeprefix(TIMM_PREFIX))
    if '://' in location:
        return _from_url(location)
    path = Path(location).expanduser()
    if not path.is_file():
        state = 'are a folder' if path.is_dir() else 'do not exist'
        raise FileNotFoundError(
            f'pretrained weights {location!r} {state} (looked at '
            f'{path.absolute()}): {where_to_get(location)}; init_cfg=None starts from '
            'random weights'
        )
    print_log(f'Pretrained weights from {path}', logger='current')
    return read_weights(path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name in a file, see :func:`unwrap_state_dict`.

    Raises:
        DamagedFileError: If the file is damaged, or not of the type that its name
            indicates.
        ValueError: If the file may not be read, holds code or other things than weights,
            or is an ``.npz`` file that is not one of AugReg's.
    """
    content = _read_file(path)
    with errors_in(str(path)):
        return unwrap_state_dict(content)


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        match path.suffix:
            case '.npz':
                return read_augreg(path)
            case '.safetensors':
                return load_file(path)
            case _:
                # With mmap, tensors are read when they are copied into the model, so that
                # a file of 24 GB does not take 24 GB of memory in addition to the model.
                mmap = is_zipfile(path)
                return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
    except PermissionError as error:
        raise ValueError(
            f'{path} cannot be read ({error.strerror}); change its permissions'
        ) from error
    except _DAMAGE as error:
        if 'Unsupported operand' in str(error):
            raise DamagedFileError(
                f'{path} is not a file of PyTorch (a saved web page?); download it again'
            ) from error
        if isinstance(error, UnpicklingError) or 'TorchScript' in str(error):
            found = re.search(r'GLOBAL \S+|TorchScript', str(error))
            raise ValueError(
                f'{path} contains more than weights and plain values '
                f'({found and found[0]}), and code in files is not executed; '
                f'{STATE_DICT_ALONE}'
            ) from error
        raise DamagedFileError(
            f'{path} is damaged or incomplete ({type(error).__name__}: {error}); '
            'download it again'
        ) from error


def _from_url(url: str) -> dict[str, Tensor]:
    print_log(f'Pretrained weights from {url}', logger='current')
    with errors_in(url):
        name = Path(urlparse(url).path).name
        if not name:
            raise ValueError('the URL ends without the name of a file; complete it')
        path = Path(torch.hub.get_dir()) / 'checkpoints' / name
        try:
            with _download_lock(name):
                if not path.exists():
                    _download(url, path)
                try:
                    return read_weights(path)
                except DamagedFileError:
                    # A connection that was cut leaves a truncated file and raises no
                    # error.
                    path.unlink()
                    raise
        except (OSError, HTTPException) as error:
            raise ConnectionError(
                f'cannot download {url} ({error}); download it elsewhere and set '
                'init_cfg.checkpoint to the file'
            ) from error


def _download(url: str, path: Path) -> None:
    checksum = torch.hub.HASH_REGEX.search(path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The file has a temporary name until it is complete.
        torch.hub.download_url_to_file(
            url, str(path), checksum.group(1) if checksum else None
        )
    except RuntimeError as error:
        if 'invalid hash value' not in str(error):
            raise
        raise ValueError(f'the download {path.name} is damaged: {error}') from error


def _download_lock(name: str) -> FileLock:
    folder = Path(torch.hub.get_dir()) / 'locks'
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f'{name}.lock')


def check_timm_model(name: str) -> None:
    """Raise ``ValueError`` with similar names unless timm has a model of this name."""
    if not isinstance(name, str):
        raise ValueError(f'model={name!r}: expected the name of a timm model')
    if timm.is_model(name):
        return
    models = timm.list_models()
    close = [model for model in models if name in model][:5]
    close = close or get_close_matches(name, models, n=5, cutoff=0.3)
    raise ValueError(f'timm has no model {name!r}; similar names: {close}')


def _from_timm(name: str) -> dict[str, Tensor]:
    check_timm_model(name)
    print_log(
        f'Pretrained weights from timm, {name} (if offline, set '
        'init_cfg.checkpoint to a file)',
        logger='current',
    )
    try:
        with _download_lock(name):
            return timm.create_model(name, pretrained=True).state_dict()
    except RuntimeError as error:
        raise ValueError(f'timm has no weights for {name!r}: {error}') from error
    except OSError as error:
        raise ConnectionError(
            f'timm cannot download the weights of {name!r} ({error}); download a file '
            'elsewhere and set init_cfg.checkpoint to it'
        ) from error
