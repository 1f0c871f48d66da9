_base_ = 'coco_instance.py'

_base_.train_dataloader.dataset.pipeline[2].scale = (1333, 800)
_base_.val_dataloader.dataset.pipeline[1].scale = (1333, 800)
_base_.test_dataloader.dataset.pipeline[1].scale = (1333, 800)
