# PIIP-SBL 1568/1120/672 from DeiT III weights: Mask R-CNN, COCO, 12 epochs.
_base_ = [
    '_base_/models/piip_sbl_maskrcnn.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]

_base_.train_dataloader.dataset.pipeline[2].scale = (1568, 941)
_base_.val_dataloader.dataset.pipeline[1].scale = (1568, 941)
_base_.test_dataloader.dataset.pipeline[1].scale = (1568, 941)
