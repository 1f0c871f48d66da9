"""Imported before any test module: importing piip_mm applies the fixes of
``piip_mm.compat``, without which some imports of the tests fail."""

import pytest
from mmengine.registry import DefaultScope

import piip_mm  # noqa: F401


@pytest.fixture(autouse=True)
def no_default_scope():
    """Reset MMEngine's default scope, which a runner leaves set for later tests."""
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()
