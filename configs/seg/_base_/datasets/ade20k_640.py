# Crops of 640 x 640 from images that are scaled in proportion.
_base_ = 'ade20k.py'

crop_size = (640, 640)
_base_.train_dataloader.dataset.pipeline[2].scale = (2560, 640)
_base_.train_dataloader.dataset.pipeline[3].crop_size = crop_size
_base_.val_dataloader.dataset.pipeline[1].scale = (1_000_000, 640)
_base_.test_dataloader.dataset.pipeline[1].scale = (1_000_000, 640)
