_base_ = 'imagenet.py'

image_size = 320
_base_.train_dataloader.dataset.pipeline[1].scale = image_size
_base_.val_dataloader.dataset.pipeline[1].scale = image_size
_base_.val_dataloader.dataset.pipeline[2].crop_size = image_size
_base_.test_dataloader.dataset.pipeline[1].scale = image_size
_base_.test_dataloader.dataset.pipeline[2].crop_size = image_size
