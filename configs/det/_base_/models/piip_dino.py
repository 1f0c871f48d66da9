# DINO on PIIP, which makes three maps; the neck adds the fourth. What builds on it adds
# backbone.branches and sets neck.in_channels to the width of the last branch.
_base_ = ['dino.py', 'piip.py']

model = dict(backbone=dict(_base_.piip, out_strides=(8, 16, 32)))
