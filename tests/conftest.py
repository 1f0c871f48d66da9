"""Runs before any test module: the package mends imports that the tests rely on."""

import piip_mm  # noqa: F401
