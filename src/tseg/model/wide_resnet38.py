"""The 38-layer wide ResNet (model A1) of Wu, Shen and van den Hengel 2016, at stride 8: the image encoder of Table 1.

Strides, dilations, dropout and the names of the weights are those of psa (Ahn and Kwak 2018), which Table 1 compares
with, so psa's published ImageNet weights load by name.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

from torch import Tensor, nn

from tseg.model.encoder import Encoder
from tseg.model.weights import ArgumentError, load_strictly, read_weights

_IGNORED = r"^(linear1000\.|fc)|\.num_batches_tracked$"
"""Tensors that are not loaded: a classifier's, and a counter that older files lack."""


class _Stage(NamedTuple):
    """Blocks of one size. The first has the stride; the dilation begins at its second convolution."""

    name: str
    num_blocks: int
    middle: int
    """Channels inside a block, in multiples of `width`."""
    out: int
    """Channels after a block, in multiples of `width`."""
    stride: int
    dilation: int


_STAGES = [
    _Stage("b2", num_blocks=3, middle=2, out=2, stride=2, dilation=1),
    _Stage("b3", num_blocks=3, middle=4, out=4, stride=2, dilation=1),
    _Stage("b4", num_blocks=6, middle=8, out=8, stride=2, dilation=1),
    _Stage("b5", num_blocks=3, middle=8, out=16, stride=1, dilation=2),
]


def _conv(channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel_size // 2)
    return nn.Conv2d(channels, out_channels, kernel_size, stride, padding, dilation, bias=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, and a shortcut."""

    def __init__(self, channels: int, middle: int, out_channels: int, stride: int, dilations: tuple[int, int]):
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(channels)
        self.conv_branch2a = _conv(channels, middle, 3, stride, dilations[0])
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = _conv(middle, out_channels, 3, dilation=dilations[1])
        same = channels == out_channels and stride == 1
        self.conv_branch1 = None if same else _conv(channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out_channels, H / stride, W / stride), sides rounded up."""
        normed = self.bn_branch2a(x).relu()
        shortcut = x if self.conv_branch1 is None else self.conv_branch1(normed)
        middle = self.bn_branch2b1(self.conv_branch2a(normed)).relu()
        return shortcut + self.conv_branch2b1(middle)


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 (dilated by 4) and 1x1, each after batch norm and ReLU, and a 1x1 shortcut."""

    def __init__(self, channels: int, out_channels: int, dropout: float):
        super().__init__()
        quarter, half = out_channels // 4, out_channels // 2
        self.bn_branch2a = nn.BatchNorm2d(channels)
        self.conv_branch2a = _conv(channels, quarter, 1)
        self.bn_branch2b1 = nn.BatchNorm2d(quarter)
        self.conv_branch2b1 = _conv(quarter, half, 3, dilation=4)
        self.bn_branch2b2 = nn.BatchNorm2d(half)
        self.conv_branch2b2 = _conv(half, out_channels, 1)
        self.conv_branch1 = _conv(channels, out_channels, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out_channels, H, W)."""
        normed = self.bn_branch2a(x).relu()
        inner = self.dropout(self.bn_branch2b1(self.conv_branch2a(normed)).relu())
        inner = self.dropout(self.bn_branch2b2(self.conv_branch2b1(inner)).relu())
        return self.conv_branch1(normed) + self.conv_branch2b2(inner)


def _layers(width: int) -> Iterator[tuple[str, nn.Module]]:
    """Yield the published name and the module of every layer, in order."""
    yield "conv1a", _conv(3, width, 3)
    channels, dilation_before = width, 1
    for name, num_blocks, middle, out, stride, dilation in _STAGES:
        yield name, ResidualBlock(channels, middle * width, out * width, stride, (dilation_before, dilation))
        channels, dilation_before = out * width, dilation
        for index in range(1, num_blocks):
            yield f"{name}_{index}", ResidualBlock(channels, middle * width, channels, 1, (dilation, dilation))
    yield "b6", Bottleneck(16 * width, 32 * width, dropout=0.3)
    yield "b7", Bottleneck(32 * width, 64 * width, dropout=0.5)
    yield "bn7", nn.BatchNorm2d(64 * width)


class WideResNet38(Encoder):
    """The features of every 8x8 patch after the last batch norm and ReLU.

    `width`: channels of the first convolution; all other layers scale with it. The published network has 64.
    """

    patch_size = 8
    """Stride in pixels, the counterpart of a ViT's patch size."""
    mean = (0.485, 0.456, 0.406)
    """Subtracted from RGB values in [0, 1]; ImageNet's, as in psa."""
    std = (0.229, 0.224, 0.225)
    """Divides the RGB values after `mean` is subtracted."""

    def __init__(self, width: int = 64):
        super().__init__()
        for name, layer in _layers(width):
            self.add_module(name, layer)
        self.num_features = 64 * width
        self.frozen = False

    def freeze(self) -> None:
        """Exclude all batch norms and the first blocks (conv1a, b2) from training.

        ASSUME: pretrained weights are trained this way. psa and 1-stage-wseg both freeze the first blocks, and psa also
        the statistics, scales and shifts of the batch norms; the paper does not say.
        """
        self.frozen = True
        for name, layer in self.named_children():
            if name.split("_")[0] in ("conv1a", "b2"):
                layer.requires_grad_(False)
        for norm in self._norms():
            norm.requires_grad_(False)

    def _norms(self) -> Iterator[nn.BatchNorm2d]:
        return (module for module in self.modules() if isinstance(module, nn.BatchNorm2d))

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen batch norms keep normalising by their pretrained statistics."""
        super().train(mode)
        if self.frozen:
            for norm in self._norms():
                norm.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, N, 64 width), in reading order, of images (B, 3, H, W) normalised by `mean` and `std`.

        H and W are multiples of 8; N = HW / 64.
        """
        # Torch 2.13 crashes on CPUs when a narrow convolution meets a channels-last image.
        features = images.contiguous()
        for layer in self.children():
            features = layer(features)
        return features.relu().flatten(2).transpose(1, 2)


def build_wide_resnet38(options: dict[str, int], weights: str | None, drop_path: float) -> WideResNet38:
    """Build a WideResNet38; its only option is `width`. Default: 64.

    `weights`: None for random weights, all of them trained; or a `.pth` or `.safetensors` file that has exactly the
    network's tensors, except a classifier's (see `WideResNet38.freeze`). Raises ArgumentError for an unusable argument.
    """
    width = options.get("width", 64)
    if options.keys() - {"width"} or width < 1:
        raise ArgumentError("options", f"wide_resnet38 has one option, a positive `width`, not {options}")
    if drop_path != 0:
        raise ArgumentError("drop_path", f"wide_resnet38 has no drop path; set drop_path to 0, not {drop_path}")
    net = WideResNet38(width)
    if weights is not None:
        load_strictly(net, read_weights(weights), ignored=_IGNORED, weights=weights)
        net.freeze()
    return net
