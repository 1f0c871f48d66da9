# UPerNet on PIIP. What builds on it adds backbone.branches and sets in_channels of the
# heads to the width of the last branch.
_base_ = ['upernet.py', '../../../det/_base_/models/piip.py']

model = dict(backbone=_base_.piip)
