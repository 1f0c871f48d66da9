"""Fixes for a current PyTorch."""

import logging
import pickle
import warnings
from argparse import Namespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner, checkpoint, load_checkpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from piip_mm.compat import (
    quiet_logger,
    quiet_warnings,
    refuse_code_in_checkpoints,
)


class NotAllowed:
    """A class that files are not allowed to contain."""


class Model(nn.Module):
    """A model with the interface that MMEngine trains."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.register_buffer('seen', torch.zeros(()))

    def train_step(self, data, optim_wrapper):
        self.seen += 1
        loss = self.layer(data[0]).square().mean()
        optim_wrapper.update_params(loss)
        return dict(loss=loss.detach())


def make_runner(work_dir, **kwargs):
    return Runner(
        model=Model(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        experiment_name=f'compat{np.random.randint(1 << 30)}',
        cfg=Config(dict(a=1)),
        **kwargs,
    )


def test_a_run_resumes_from_its_checkpoint(tmp_path):
    make_runner(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=2)).train()
    resumed = make_runner(
        tmp_path,
        train_cfg=dict(by_epoch=True, max_epochs=3),
        load_from=str(tmp_path / 'epoch_2.pth'),
        resume=True,
    )
    resumed.train()
    assert resumed.epoch == 3 and resumed.iter == 6
    assert resumed.model.seen == 6
    history = resumed.message_hub.get_scalar('train/loss')
    assert len(history.data[0]) == 6
    assert history.mean() < history.max()


def test_statistics_come_back(tmp_path):
    path = tmp_path / 'log.pth'
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    torch.save(dict(state_dict={}, log=buffer, best=np.float64(0.5)), path)
    content = load_checkpoint(nn.Linear(1, 1), str(path), strict=False)
    assert content['log'].statistics('mean') == 2
    assert content['best'] == 0.5


@pytest.mark.parametrize('value', [NotAllowed(), print, NotAllowed.__init__])
def test_anything_else_is_refused(tmp_path, value):
    path = tmp_path / 'other.pth'
    torch.save(dict(value=value), path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)


class Call:
    """Pickled as a call of ``getattr``."""

    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return getattr, self.args


@pytest.mark.parametrize('args', [(HistoryBuffer, '__init__'), (torch.Tensor, 'min')])
def test_getattr_gives_out_statistics_only(tmp_path, args):
    path = tmp_path / 'getattr.pth'
    torch.save(Call(*args), path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)


def test_arguments_of_a_script_next_to_the_weights(tmp_path):
    """Published classifiers were saved with the arguments of the script."""
    path = tmp_path / 'released.pth'
    content = {'model': {'weight': torch.ones(1)}, 'args': Namespace(lr=3e-5)}
    torch.save(content, path)
    assert torch.load(path, weights_only=True)['args'].lr == 3e-5


def test_noise_of_dependencies_is_hidden(caplog):
    logger = logging.getLogger('noise')
    quiet_logger(logger)
    with caplog.at_level(logging.WARNING, 'noise'):
        logger.warning('"FileClient" will be deprecated in future. Please use')
        logger.warning('the metric is 0')
    assert [record.message for record in caplog.records if record.name == 'noise'] == [
        'the metric is 0'
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        quiet_warnings()
        warnings.warn('pkg_resources is deprecated as an API. See', stacklevel=1)
        warnings.warn('your labels are all 255', stacklevel=1)
    assert [str(warning.message) for warning in caught] == ['your labels are all 255']


@pytest.mark.parametrize('asked', [{}, dict(weights_only=False)])
def test_the_fork_does_not_execute_code_either(asked, monkeypatch, tmp_path):
    """Its MMEngine loads files by a function that upstream does not have."""

    def executes(file, map_location=None, weights_only=None):
        return torch.load(file, map_location, weights_only=False)

    monkeypatch.setattr(checkpoint, '_safe_torch_load', executes, raising=False)
    refuse_code_in_checkpoints()
    path = tmp_path / 'code.pth'
    torch.save(dict(state_dict={}, code=NotAllowed()), path)
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        checkpoint._safe_torch_load(path, map_location='cpu', **asked)
