"""The wide ResNet against a float64 version of the published tables, with the names of the circulated weights."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d

from tseg.model.image_encoder import build_image_encoder
from tseg.model.wide_resnet38 import WideResNet38

BASIC = {"b2": (64, 128, 128), "b3": (128, 256, 256), "b4": (256, 512, 512), "b5": (512, 512, 1024)}
REPEATS = {"b2": 2, "b3": 2, "b4": 5, "b5": 2}
BOTTLENECKS = {"b6": (1024, 512, 1024, 2048), "b7": (2048, 1024, 2048, 4096)}


def published_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every weight of the circulated file: model A1 as psa names it."""
    yield "conv1a.weight", (64, 3, 3, 3)
    for stage, (before, middle, after) in BASIC.items():
        names = [stage, *(f"{stage}_{number + 1}" for number in range(REPEATS[stage]))]
        for name, channels in zip(names, [before] + [after] * REPEATS[stage], strict=True):
            yield from norm(f"{name}.bn_branch2a", channels)
            yield f"{name}.conv_branch2a.weight", (middle, channels, 3, 3)
            yield from norm(f"{name}.bn_branch2b1", middle)
            yield f"{name}.conv_branch2b1.weight", (after, middle, 3, 3)
        yield f"{stage}.conv_branch1.weight", (after, before, 1, 1)
    for name, (before, quarter, half, after) in BOTTLENECKS.items():
        for layer, (inputs, outputs, side) in {
            "2a": (before, quarter, 1),
            "2b1": (quarter, half, 3),
            "2b2": (half, after, 1),
        }.items():
            yield from norm(f"{name}.bn_branch{layer}", inputs)
            yield f"{name}.conv_branch{layer}.weight", (outputs, inputs, side, side)
        yield f"{name}.conv_branch1.weight", (after, before, 1, 1)
    yield from norm("bn7", 4096)


def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    return ((f"{name}.{part}", (channels,)) for part in ("weight", "bias", "running_mean", "running_var"))


def published_forward(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """Feature maps of float64 images, layer by layer."""

    def normed(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return batch_norm(x, mean, var, weight, bias, eps=1e-5).clamp(min=0)

    def conv(x: Tensor, name: str, padding: int, stride: int = 1, dilation: int = 1) -> Tensor:
        return conv2d(x, weights[f"{name}.weight"], None, stride, padding, dilation)

    def basic(x: Tensor, name: str, stride: int = 1, dilations: tuple[int, int] = (1, 1)) -> Tensor:
        first = normed(x, f"{name}.bn_branch2a")
        second = normed(
            conv(first, f"{name}.conv_branch2a", dilations[0], stride, dilations[0]), f"{name}.bn_branch2b1"
        )
        last = conv(second, f"{name}.conv_branch2b1", dilations[1], 1, dilations[1])
        return last + (x if "_" in name else conv(first, f"{name}.conv_branch1", 0, stride))

    def bottleneck(x: Tensor, name: str) -> Tensor:
        first = normed(x, f"{name}.bn_branch2a")
        second = normed(conv(first, f"{name}.conv_branch2a", 0), f"{name}.bn_branch2b1")
        third = normed(conv(second, f"{name}.conv_branch2b1", 4, 1, 4), f"{name}.bn_branch2b2")
        return conv(third, f"{name}.conv_branch2b2", 0) + conv(first, f"{name}.conv_branch1", 0)

    x = conv(images, "conv1a", 1)
    for name in ("b2", "b3", "b4"):
        x = basic(x, name, stride=2)
        for number in range(REPEATS[name]):
            x = basic(x, f"{name}_{number + 1}")
    x = basic(x, "b5", dilations=(1, 2))
    x = basic(basic(x, "b5_1", dilations=(2, 2)), "b5_2", dilations=(2, 2))
    return normed(bottleneck(bottleneck(x, "b6"), "b7"), "bn7")


def random_net(width: int = 2) -> WideResNet38:
    """A net whose batch norms have statistics, scales and shifts far from 0 and 1, as after training."""
    torch.manual_seed(0)
    net = WideResNet38(width)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
    return net.eval()


def images(height: int = 32, width: int = 32, number: int = 2) -> Tensor:
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(1))


def circulated(net: WideResNet38) -> dict[str, Tensor]:
    """The weights in the circulated format: converted from mxnet, without num_batches_tracked."""
    return {name: weight for name, weight in net.state_dict().items() if "num_batches_tracked" not in name}


def build(weights: Path | None, width: int = 2) -> WideResNet38:
    torch.manual_seed(5)
    encoder = build_image_encoder("wide_resnet38", {"width": width}, str(weights) if weights else None, drop_path=0.0)
    assert isinstance(encoder, WideResNet38)
    return encoder


def test_weights_have_the_names_and_shapes_of_the_published_net() -> None:
    with torch.device("meta"):
        net = WideResNet38()
    assert {name: tuple(weight.shape) for name, weight in circulated(net).items()} == dict(published_shapes())


def test_weights_are_as_many_as_the_published_file_holds() -> None:
    """The published file has 402 MB (of 2**20 bytes): the float32 weights and the overhead of the format."""
    with torch.device("meta"):
        net = WideResNet38()
    assert sum(parameter.numel() for parameter in net.parameters()) == 105_070_912
    assert 400 < 4 * sum(weight.numel() for weight in circulated(net).values()) / 2**20 < 402


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_all_channels_grow_with_the_width(width: int) -> None:
    narrow = {name: tuple(weight.shape) for name, weight in circulated(WideResNet38(width)).items()}
    for name, shape in published_shapes():
        scaled = [channels * width // 64 for channels in shape[:2]]
        scaled[1:] = [3] if name == "conv1a.weight" else scaled[1:]
        assert narrow[name] == (*scaled, *shape[2:])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (8, 8)])
def test_features_are_those_of_the_published_layers(height: int, width: int) -> None:
    net = random_net().double()
    inputs = images(height, width).double()
    expected = published_forward(dict(net.state_dict()), inputs)
    assert expected.shape == (2, 128, height // 8, width // 8)
    torch.testing.assert_close(net(inputs), expected.flatten(2).transpose(1, 2))
    torch.testing.assert_close(random_net()(inputs.float()).double(), net(inputs), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 72), (96, 96), (128, 88)])
def test_a_patch_is_eight_pixels_wide(height: int, width: int) -> None:
    net = random_net()
    tokens = net(images(height, width, number=1))
    assert net.patch_size == 8
    assert tokens.shape == (1, (height // 8) * (width // 8), net.num_features)


@pytest.mark.parametrize(
    ("block", "reach"),
    [("b4_1", [-2, -1, 0, 1, 2]), ("b5", [-3, -2, -1, 0, 1, 2, 3]), ("b5_1", [-4, -2, 0, 2, 4]), ("b7", [-4, 0, 4])],
)
def test_the_receptive_field_of_a_block_follows_its_dilations(block: str, reach: list[int]) -> None:
    layer = getattr(random_net(), block)
    x = torch.rand(1, layer.bn_branch2a.num_features, 17, 17, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[0, :, 8, 8].sum(), x)
    seen = gradient[0].abs().sum(dim=0).nonzero() - 8
    assert seen.tolist() == [[row, column] for row in reach for column in reach]


def test_patches_come_in_reading_order() -> None:
    """A change in one corner moves the token of that corner most."""
    net, inputs = random_net(), images(64, 128, number=1)
    changed = inputs.clone()
    changed[:, :, -8:, :8] += 100  # last row, first column of 8 x 16
    difference = (net(changed) - net(inputs)).norm(dim=-1)[0]
    assert difference.argmax().item() == 7 * 16


def test_channels_are_dropped_only_in_training() -> None:
    net = random_net()
    assert torch.equal(net(images()), net(images()))
    assert (net.b6.dropout.p, net.b7.dropout.p) == (0.3, 0.5)
    net.train()
    assert not torch.equal(net(images()), net(images()))


def test_a_narrow_net_learns() -> None:
    """A linear layer on the mean features learns to distinguish two images."""
    torch.manual_seed(0)
    net, inputs = WideResNet38(2).train(), images()
    readout = nn.Linear(net.num_features, 2)
    optimizer = torch.optim.Adam([*net.parameters(), *readout.parameters()], lr=3e-3)
    for _ in range(15):
        loss = nn.functional.cross_entropy(readout(net(inputs).mean(dim=1)), torch.tensor([0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


@pytest.mark.parametrize("classifier", ["linear1000.weight", "fc8.weight", None])
def test_every_weight_comes_from_the_file(tmp_path: Path, classifier: str | None) -> None:
    theirs = random_net()
    extra = {} if classifier is None else {classifier: torch.zeros(1000, 128)}
    torch.save(circulated(theirs) | extra, tmp_path / "a1.pth")
    ours = build(tmp_path / "a1.pth").eval()
    assert all(torch.equal(weight, theirs.state_dict()[name]) for name, weight in circulated(ours).items())
    assert torch.equal(ours(images()), theirs(images()))


def test_a_state_dict_with_num_batches_tracked_is_loaded(tmp_path: Path) -> None:
    torch.save(random_net().state_dict(), tmp_path / "a1.pth")
    assert torch.equal(build(tmp_path / "a1.pth").eval()(images()), random_net()(images()))


@pytest.mark.parametrize(
    ("name", "shape", "complaint"),
    [
        ("b4_3.bn_branch2a.running_var", None, r"b4_3\.bn_branch2a\.running_var is missing, expected \(16,\)"),
        ("b8.conv_branch1.weight", (4, 4), r"b8\.conv_branch1\.weight is \(4, 4\), expected none"),
        ("conv1a.weight", (2, 3, 7, 7), r"conv1a\.weight is \(2, 3, 7, 7\), expected \(2, 3, 3, 3\)"),
    ],
)
def test_a_file_with_a_missing_an_extra_or_a_misshapen_weight_is_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...] | None, complaint: str
) -> None:
    weights = circulated(random_net())
    if shape is None:
        del weights[name]
    else:
        weights[name] = torch.zeros(shape)
    torch.save(weights, tmp_path / "a1.pth")
    with pytest.raises(ValueError, match=rf"a1\.pth.* 1 of its tensors: {complaint}"):
        build(tmp_path / "a1.pth")


def test_a_file_of_another_width_is_refused(tmp_path: Path) -> None:
    torch.save(circulated(random_net(4)), tmp_path / "a1.pth")
    with pytest.raises(ValueError, match=r"a1\.pth.*conv1a\.weight is \(4, 3, 3, 3\), expected \(2, 3, 3, 3\)"):
        build(tmp_path / "a1.pth")


def test_weights_come_from_safetensors_too(tmp_path: Path) -> None:
    save_file(circulated(random_net()), tmp_path / "a1.safetensors")
    assert torch.equal(build(tmp_path / "a1.safetensors").eval()(images()), random_net()(images()))


@pytest.mark.parametrize("content", [None, b"", b"no weights at all", [torch.zeros(1)], {"conv1a.weight": 3}])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, content: object) -> None:
    file = tmp_path / "a1.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(ValueError, match=r"^the weights '\S+a1\.pth' (are not a file|cannot be read: |do not fit)"):
        build(file)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("a pickle ran code",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(Harmful(), tmp_path / "a1.pth")
    with pytest.raises(ValueError, match=r"a1\.pth' cannot be read: "):
        build(tmp_path / "a1.pth")
    assert "ran code" not in capsys.readouterr().out


def test_pretrained_norms_and_first_blocks_stay_as_they_are_in_training(tmp_path: Path) -> None:
    torch.save(circulated(random_net()), tmp_path / "a1.pth")
    net = build(tmp_path / "a1.pth").train()
    learning = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert learning == {name for name in circulated(net) if "conv" in name and name[:2] not in ("co", "b2")}
    net(images()).sum().backward()
    before = circulated(random_net())
    assert all(torch.equal(weight, before[name]) for name, weight in circulated(net).items())
    assert net.b7.dropout.training


def test_random_norms_learn() -> None:
    net = build(None).train()
    before = net.bn7.running_mean.clone()
    net(images()).sum().backward()
    assert not torch.equal(net.bn7.running_mean, before)
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize(
    ("options", "drop_path", "complaint"),
    [
        ({"width": 0}, 0.0, "one option, a positive `width`, not {'width': 0}"),
        ({"width": 2, "depth": 3}, 0.0, "one option, a positive `width`, not "),
        ({"width": 2}, 0.1, "no drop path; set drop_path to 0, not 0.1"),
    ],
)
def test_an_unknown_argument_is_refused(options: dict[str, int], drop_path: float, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build_image_encoder("wide_resnet38", options, None, drop_path)


def test_channels_last_images_have_the_same_features() -> None:
    net = WideResNet38(width=4).eval()
    images = torch.randn(2, 3, 32, 40)
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(last), net(images), rtol=0, atol=0)
    net(last).sum().backward()
    assert all(weight.grad is not None for weight in net.parameters())
