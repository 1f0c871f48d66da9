# DINO on PIIP, which returns three maps; the neck adds the fourth. Configs that inherit
# from it add backbone.branches and set neck.in_channels to the width of the last branch.
_base_ = ['dino.py', 'piip.py']

model = dict(backbone=dict(_base_.piip, out_strides=(8, 16, 32)))
