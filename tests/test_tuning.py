"""Tools leave the cores alone that other processes keep busy."""

import os
from dataclasses import replace

import pytest
import torch

from piip_mm.engine import tuning
from piip_mm.engine.tuning import THREAD_CHOICES, CoreUse, core_use, share_cores


@pytest.fixture
def four_cores(monkeypatch):
    """Four cores and threads, without a choice of the user."""
    before = torch.get_num_threads()
    for name in THREAD_CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1, 2, 3})
    torch.set_num_threads(4)
    yield monkeypatch
    torch.set_num_threads(before)


def busy(monkeypatch, cores):
    """Use at a start ten seconds ago, since when others have used this many cores."""
    now = CoreUse(moment=110.0, by_others=1000.0)
    monkeypatch.setattr(tuning, 'core_use', lambda: now)
    return replace(now, moment=100.0, by_others=1000.0 - 10 * cores)


@pytest.mark.parametrize(
    ('cores', 'expected'), [(0.0, 4), (0.3, 4), (0.9, 3), (2.2, 2), (4.0, 1), (9.0, 1)]
)
def test_free_cores_are_used(four_cores, cores, expected):
    share_cores(busy(four_cores, cores))
    assert torch.get_num_threads() == expected


@pytest.mark.parametrize('name', THREAD_CHOICES)
def test_a_choice_of_the_user_stays(four_cores, name):
    four_cores.setenv(name, '3')
    share_cores(busy(four_cores, 2))
    assert torch.get_num_threads() == 4


def test_fewer_threads_than_free_cores_stay(four_cores):
    torch.set_num_threads(2)
    share_cores(busy(four_cores, 1))
    assert torch.get_num_threads() == 2


def test_a_system_that_does_not_tell(four_cores):
    share_cores(replace(busy(four_cores, 4), by_others=None))
    assert torch.get_num_threads() == 4


def test_own_work_is_not_that_of_others():
    """Own work adds to the use of the cores and to the own use alike."""
    if (start := core_use()).by_others is None:
        pytest.skip('the system does not tell how much its cores are used')
    torch.randn(600, 600).matrix_power(60)
    stop = core_use()
    capacity = (stop.moment - start.moment) * len(os.sched_getaffinity(0))
    assert -0.1 <= stop.by_others - start.by_others <= capacity + 0.1
