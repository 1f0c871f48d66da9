# coco_instance_ms_1024.py with boxes only.
_base_ = 'coco_instance_ms_1024.py'

_base_.train_dataloader.dataset.pipeline[1].with_mask = False
_base_.val_dataloader.dataset.pipeline[2].with_mask = False
_base_.test_dataloader.dataset.pipeline[2].with_mask = False

val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
