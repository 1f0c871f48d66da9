# coco_instance_ms_1024.py with all sizes multiplied by 1.5.
_base_ = 'coco_instance_ms_1024.py'

_base_.scales = [(short, 1999) for short in range(720, 1201, 48)]
_base_.train_dataloader.dataset.pipeline[3].transforms[0][0].scales = _base_.scales
_base_.train_dataloader.dataset.pipeline[3].transforms[1][0].scales = [
    (600, 1999),
    (750, 1999),
    (900, 1999),
]
_base_.train_dataloader.dataset.pipeline[3].transforms[1][1].crop_size = (576, 900)
_base_.train_dataloader.dataset.pipeline[3].transforms[1][2].scales = _base_.scales
_base_.train_dataloader.dataset.pipeline[4].crop_size = (1536, 1536)
_base_.val_dataloader.dataset.pipeline[1].scale = (1999, 1200)
_base_.test_dataloader.dataset.pipeline[1].scale = (1999, 1200)
