# DETR's random scales multiplied by 1568 / 1333, so that the largest fits 1568 x 941
# pixels, the scale for testing.
_base_ = 'coco_instance_ms_1024.py'

_base_.scales = [(short * 1568 // 1333, 1568) for short in range(480, 801, 32)]
_base_.train_dataloader.dataset.pipeline[3].transforms[0][0].scales = _base_.scales
_base_.train_dataloader.dataset.pipeline[3].transforms[1][0].scales = [
    (470, 1568),
    (588, 1568),
    (705, 1568),
]
_base_.train_dataloader.dataset.pipeline[3].transforms[1][1].crop_size = (451, 705)
_base_.train_dataloader.dataset.pipeline[3].transforms[1][2].scales = _base_.scales
# No image is larger than 1568 pixels, so the final crop is not needed.
_base_.train_dataloader.dataset.pipeline.pop(4)
_base_.val_dataloader.dataset.pipeline[1].scale = (1568, 941)
_base_.test_dataloader.dataset.pipeline[1].scale = (1568, 941)
