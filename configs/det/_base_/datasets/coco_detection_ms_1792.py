# coco_instance_ms_1024.py with all sizes multiplied by 1.75, boxes only.
_base_ = 'coco_detection_ms_1024.py'

_base_.scales = [(short, 2332) for short in range(840, 1401, 56)]
_base_.train_dataloader.dataset.pipeline[3].transforms[0][0].scales = _base_.scales
_base_.train_dataloader.dataset.pipeline[3].transforms[1][0].scales = [
    (700, 2332),
    (875, 2332),
    (1050, 2332),
]
_base_.train_dataloader.dataset.pipeline[3].transforms[1][1].crop_size = (672, 1050)
_base_.train_dataloader.dataset.pipeline[3].transforms[1][2].scales = _base_.scales
_base_.train_dataloader.dataset.pipeline[4].crop_size = (1792, 1792)
_base_.val_dataloader.dataset.pipeline[1].scale = (2332, 1400)
_base_.test_dataloader.dataset.pipeline[1].scale = (2332, 1400)
