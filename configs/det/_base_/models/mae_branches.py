# The branches of the published MAE models (arXiv 2111.06377), pretrained on ImageNet-1k
# without labels; configs add img_size and window_size. Patches of MAE-H are resized from
# 14 to 16 pixels, its positions to the grid of 224 pixels in such patches.
mae_base = dict(
    type='PIIPViT',
    arch='mae_base',
    drop_path_rate=0.15,
    drop_path_schedule='linear',
    with_cp=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth',
    ),
)
mae_large = dict(
    type='PIIPViT',
    arch='mae_large',
    drop_path_rate=0.4,
    drop_path_schedule='linear',
    with_cp=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_large.pth',
    ),
)
mae_huge = dict(
    type='PIIPViT',
    arch='mae_huge',
    pretrain_img_size=224,
    drop_path_rate=0.4,
    drop_path_schedule='linear',
    with_cp=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_huge.pth',
    ),
)
# Last block of each of the 12 groups in MAE-H, whose 32 blocks cannot be split evenly.
mae_huge_ends = [1, 3, 5, 7, 10, 13, 16, 19, 22, 25, 28, 31]
