# Cascade Mask R-CNN on PIIP. Configs that inherit from it add backbone.branches and set
# neck.in_channels to the width of the last branch.
_base_ = ['cascade.py', 'piip.py']

model = dict(data_preprocessor=dict(pad_size_divisor=224), backbone=_base_.piip)
