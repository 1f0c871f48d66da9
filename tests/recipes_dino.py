"""Translates DINO of mmdet 3 into the fields of the published recipes."""

from __future__ import annotations

from typing import Any


def dino_fields(model: Any) -> dict[str, Any]:
    """The detector of a model config, under its published names."""
    encoder, decoder = model.encoder.layer_cfg, model.decoder.layer_cfg
    head, queries = model.bbox_head, model.dn_cfg
    costs = {
        cost.type: {k: v for k, v in cost.items() if k != 'type'}
        for cost in model.train_cfg.assigner.match_costs
    }
    assert model.decoder.post_norm_cfg is None
    # In mmdet 3 the layers fix the order of operations, and their options contain the
    # number of levels.
    assert encoder.self_attn_cfg.pop('num_levels') == model.neck.num_outs
    assert decoder.cross_attn_cfg.pop('num_levels') == model.neck.num_outs
    deform = 'MultiScaleDeformableAttention'
    return {
        'type': model.type,
        'bbox_head': {
            **head,
            # Our class differs only in its precision.
            'type': head.type.removeprefix('Float32'),
            'num_query': model.num_queries,
            'as_two_stage': model.as_two_stage,
            'with_box_refine': model.with_box_refine,
            'dn_cfg': {
                'type': 'CdnQueryGenerator',
                'noise_scale': {
                    'label': queries.label_noise_scale,
                    'box': queries.box_noise_scale,
                },
                'group_cfg': queries.group_cfg,
            },
            'transformer': {
                'type': 'DinoTransformer',
                'two_stage_num_proposals': model.num_queries,
                'encoder': {
                    'type': 'DetrTransformerEncoder',
                    'num_layers': model.encoder.num_layers,
                    'transformerlayers': {
                        'type': 'BaseTransformerLayer',
                        'attn_cfgs': {'type': deform, **encoder.self_attn_cfg},
                        **_ffn(encoder.ffn_cfg),
                        'operation_order': ['self_attn', 'norm', 'ffn', 'norm'],
                    },
                },
                'decoder': {
                    'type': 'DinoTransformerDecoder',
                    'num_layers': model.decoder.num_layers,
                    'return_intermediate': model.decoder.return_intermediate,
                    'transformerlayers': {
                        'type': 'DetrTransformerDecoderLayer',
                        'attn_cfgs': [
                            {'type': 'MultiheadAttention', **decoder.self_attn_cfg},
                            {'type': deform, **decoder.cross_attn_cfg},
                        ],
                        **_ffn(decoder.ffn_cfg),
                        'operation_order': [
                            *('self_attn', 'norm', 'cross_attn', 'norm', 'ffn', 'norm')
                        ],
                    },
                },
            },
            'positional_encoding': {
                'type': 'SinePositionalEncoding',
                **{k: v for k, v in model.positional_encoding.items() if k != 'offset'},
            },
        },
        'train_cfg': {
            'assigner': {
                'type': model.train_cfg.assigner.type,
                'cls_cost': {'type': 'FocalLossCost', **costs['FocalLossCost']},
                'reg_cost': {'type': 'BBoxL1Cost', **costs['BBoxL1Cost']},
                'iou_cost': {'type': 'IoUCost', **costs['IoUCost']},
            }
        },
        'test_cfg': dict(model.test_cfg),
    }


def _ffn(cfg: Any) -> dict[str, Any]:
    assert cfg.embed_dims == 256
    return {'feedforward_channels': cfg.feedforward_channels, 'ffn_dropout': cfg.ffn_drop}
