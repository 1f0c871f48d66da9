# PIIP-SBL 1568/896/672.
_base_ = 'piip_sbl_maskrcnn_1x.py'

_base_.model.backbone.branches[1].img_size = 896
