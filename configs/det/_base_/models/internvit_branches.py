# InternViT-6B (arXiv 2312.14238); configs add img_size. Patches are resized from 14 to 16
# pixels, positions to the grid of 224 pixels in such patches. The released models attend
# globally; in the papers they had windows.
internvit_6b = dict(
    type='PIIPViT',
    arch='internvit_6b',
    pretrain_img_size=224,
    drop_path_rate=0.4,
    drop_path_schedule='linear',
    with_cp=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://huggingface.co/OpenGVLab/InternVL/resolve/main/intern_vit_6b_224px.pth',
    ),
)
# Last block of each of the 12 groups.
internvit_6b_ends = [3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 43, 47]
