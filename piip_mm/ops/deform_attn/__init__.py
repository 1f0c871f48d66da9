"""Sampling core of deformable attention; a file per backend."""
