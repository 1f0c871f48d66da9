# PIIP-BST 1120/896/448, a parameter-direct pyramid: the larger the image, the larger the
# network. The merge has the width of the last branch. The sizes are our choice.
_base_ = '../piip_tsb_maskrcnn_1x_1120-896-448.py'

_base_.model.backbone.branches = [
    dict(_base_.deit3_base, img_size=1120, window_size=14),
    dict(_base_.deit3_small, img_size=896, window_size=14),
    dict(_base_.deit_tiny, img_size=448, window_size=14),
]
_base_.model.neck.in_channels = [192] * 4
