# UPerNet on PIIP. Configs that inherit from it add backbone.branches and set in_channels
# of the heads to the width of the last branch.
_base_ = ['upernet.py', '../../../det/_base_/models/piip.py']

model = dict(backbone=_base_.piip)
