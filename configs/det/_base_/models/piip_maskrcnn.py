# Mask R-CNN on PIIP. What builds on it adds backbone.branches and sets neck.in_channels
# to the width of the last branch.
_base_ = ['maskrcnn.py', 'piip.py']

model = dict(data_preprocessor=dict(pad_size_divisor=224), backbone=_base_.piip)
