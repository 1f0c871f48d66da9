# PIIP-TSB 1568/896/448.
_base_ = 'piip_tsb_maskrcnn_1x_1568-1120-672.py'

_base_.model.backbone.branches[1].img_size = 896
_base_.model.backbone.branches[2].img_size = 448
