"""Runs before any test module: the package mends imports that the tests rely on."""

import pytest
from mmengine.registry import DefaultScope

import piip_mm  # noqa: F401


@pytest.fixture(autouse=True)
def no_default_scope():
    """A runner leaves its scope behind, in which other tests would look things up."""
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()
