# PIIP-TSB 1120/896/448 with 0 interactions instead of 12.
_base_ = '../piip_tsb_maskrcnn_1x_1120-896-448.py'

_base_.model.backbone.num_interactions = 0
