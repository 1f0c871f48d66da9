"""What is counted: the three conventions of parameters and FLOPs."""

from __future__ import annotations

from dataclasses import dataclass

#: What one FLOP is, for the reports.
FLOP = (
    '1 FLOP = 1 multiply-add. Besides linear layers, convolutions and attention, affine '
    'norms count 2 a value, convolution biases, ReLU and pooling 1; GELU, softmax, '
    'residual sums, biases of linear layers and interpolation count nothing.'
)


@dataclass(frozen=True)
class Count:
    """Size and cost of a part.

    Attributes:
        params: Number of parameters.
        flops: Multiply-adds for one image.
    """

    params: int = 0
    flops: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.params + other.params, self.flops + other.flops)


@dataclass(frozen=True, kw_only=True)
class Convention:
    """A way to count a backbone.

    Attributes:
        name: Of the column.
        meaning: One sentence for the reports.
        own_sizes: Every branch gets a square image of its ``img_size``; otherwise the
            network resizes the given input.
        classifier: Count a classifier: linear merge layers and a head of 1000 classes in
            place of the convolutional merge and the pyramid, position embeddings stored
            at the size of the branch's image.
        padded_qkv: Query, key and value are projected for the padding of windows too.
        padded_attention: Attention in windows is counted with their padding, global
            attention with the prefix tokens of a branch.
        nominal_sampling: The sampling core is counted for 4 points of the queries' full
            width, whatever the layer's points and value width are.
        network_pyramid: The pyramid of a network of several branches has FLOPs.
        map_layer_norm: LayerNorms over the channels of a map have FLOPs.
    """

    name: str
    meaning: str
    own_sizes: bool = True
    classifier: bool = False
    padded_qkv: bool = False
    padded_attention: bool = False
    nominal_sampling: bool = True
    network_pyramid: bool = False
    map_layer_norm: bool = False


PUBLISHED = Convention(
    name='as published',
    meaning='the convention of the papers: the backbone with a classification merge and '
    'a head of 1000 classes, without pyramid, at its square configured size',
    classifier=True,
)
RELEASED = Convention(
    name='as released',
    meaning='the backbone of the released checkpoints as the published code computes it, '
    'at its square configured size: query, key and value of padded window tokens '
    'included, FLOPs of the pyramid excluded (included for a single branch)',
    padded_qkv=True,
)
RUN = Convention(
    name='as run',
    meaning='the backbone as this implementation executes it for the given input, '
    'attention to padded window tokens and pyramid included',
    own_sizes=False,
    padded_attention=True,
    nominal_sampling=False,
    network_pyramid=True,
    map_layer_norm=True,
)

#: The columns of a report, in order.
CONVENTIONS = (PUBLISHED, RELEASED, RUN)
