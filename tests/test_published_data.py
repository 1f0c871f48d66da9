"""The configs of the published data sets for segmentation and classification."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

CONFIGS = Path(__file__).parents[1] / 'configs'


@pytest.mark.parametrize(
    ('name', 'size'), [('ade20k', 512), ('ade20k_896', 896), ('ade20k_1120', 1120)]
)
def test_ade20k_is_scaled_and_cropped_as_published(name, size):
    config = Config.fromfile(CONFIGS / f'seg/_base_/datasets/{name}.py')
    _, _, resize, crop, flip, distort, _ = config.train_dataloader.dataset.pipeline
    assert (resize.scale, resize.ratio_range) == ((4 * size, size), (0.5, 2.0))
    assert (crop.crop_size, crop.cat_max_ratio) == ((size, size), 0.75)
    assert config.crop_size == (size, size)
    assert (flip.prob, distort.type) == (0.5, 'PhotoMetricDistortion')
    assert config.train_dataloader.batch_size == 2

    from mmseg.registry import TRANSFORMS

    for loader in (config.val_dataloader, config.test_dataloader):
        resize = TRANSFORMS.build(loader.dataset.pipeline[1])
        # Wider than 2048:512, and still the short edge is that of a window.
        image = np.zeros((100, 900, 3), np.uint8)
        assert resize(dict(img=image))['img_shape'] == (size, 9 * size)
        assert loader.dataset.pipeline[2].type == 'LoadAnnotations'


@pytest.mark.parametrize(
    ('name', 'size'), [('imagenet', 384), ('imagenet_368', 368), ('imagenet_320', 320)]
)
def test_imagenet_is_augmented_and_cropped_as_published(name, size):
    from mmpretrain.registry import TRANSFORMS

    config = Config.fromfile(CONFIGS / f'cls/_base_/datasets/{name}.py')
    assert config.train_dataloader.batch_size == 128
    assert config.train_dataloader.drop_last is True
    names = [step.type for step in config.train_dataloader.dataset.pipeline]
    assert 'RandAugment' in names and 'RandomErasing' not in names
    # Brightness tells the place.
    image = np.add.outer(np.arange(96), np.arange(150)).astype(np.uint8)
    image = np.repeat(image[..., None], 3, axis=-1)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for loader in ('train', 'val', 'test'):
            results = dict(img=image)
            for step in config[f'{loader}_dataloader'].dataset.pipeline[1:-1]:
                results = TRANSFORMS.build(step)(results)
            assert results['img'].shape == (size, size, 3)
            if loader != 'train':
                # The crop is as high as the image: nothing is lost above and below.
                small = cv2.resize(results['img'], (96, 96), interpolation=cv2.INTER_AREA)
                assert np.abs(small - image[:, 27:123].astype(float)).max() < 2
    assert config.val_evaluator.topk == (1, 5)
