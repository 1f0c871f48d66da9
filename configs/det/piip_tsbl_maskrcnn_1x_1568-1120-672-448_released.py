# PIIP-TSBL 1568/1120/672/448 as released: the first branch is a second DeiT III small,
# because the published code built it with the settings of the second branch.
_base_ = 'piip_tsbl_maskrcnn_1x_1568-1120-672-448.py'

_base_.model.backbone.branches[0].update(_base_.deit3_small)
