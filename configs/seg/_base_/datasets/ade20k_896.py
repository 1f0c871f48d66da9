# Crops of 896 x 896 from images that are scaled in proportion.
_base_ = 'ade20k.py'

crop_size = (896, 896)
_base_.train_dataloader.dataset.pipeline[2].scale = (3584, 896)
_base_.train_dataloader.dataset.pipeline[3].crop_size = crop_size
_base_.val_dataloader.dataset.pipeline[1].scale = (1_000_000, 896)
_base_.test_dataloader.dataset.pipeline[1].scale = (1_000_000, 896)
