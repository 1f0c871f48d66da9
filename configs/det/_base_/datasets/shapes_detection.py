# The example data set at a smaller scale, with boxes only.
_base_ = 'shapes_instance.py'

image_scale = (224, 180)
_base_.train_dataloader.dataset.pipeline[2].scale = image_scale
_base_.val_dataloader.dataset.pipeline[1].scale = image_scale
_base_.test_dataloader.dataset.pipeline[1].scale = image_scale

_base_.val_evaluator.metric = 'bbox'
_base_.test_evaluator.metric = 'bbox'
