# The branches of PIIP-TSB all at 896 pixels: no image pyramid. The size is our choice.
_base_ = '../piip_tsb_maskrcnn_1x_1120-896-448.py'

_base_.model.backbone.branches[0].img_size = 896
_base_.model.backbone.branches[2].img_size = 896
_base_.train_dataloader.dataset.pipeline[2].scale = (896, 537)
_base_.val_dataloader.dataset.pipeline[1].scale = (896, 537)
_base_.test_dataloader.dataset.pipeline[1].scale = (896, 537)
