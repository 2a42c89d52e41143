"""The image encoder against timm's own forward pass and torch's own interpolation."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.model.image_encoder import ViTEncoder, build_image_encoder, build_vit, normalisation
from tseg.model.weights import ArgumentError, MissingWeightsError
from tseg.model.wide_resnet38 import WideResNet38

import timm  # isort: skip  (after tseg.model.image_encoder, which sees to torchvision)
from safetensors.torch import save_file  # isort: skip

NAME = "vit_tiny_patch16_224"
OPTIONS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def build(weights: Path | None = None, **options: int) -> ViTEncoder:
    torch.manual_seed(0)
    return build_vit(NAME, OPTIONS | options, str(weights) if weights else None, drop_path=0.0).eval()


def timm_vit(num_classes: int = 10, **options: Any) -> Any:
    """timm's ViT, with position embeddings large enough to matter."""
    torch.manual_seed(1)
    vit = timm.create_model(NAME, num_classes=num_classes, **(OPTIONS | options)).eval()
    torch.nn.init.normal_(vit.pos_embed)
    return vit


def images(height: int, width: int, number: int = 2) -> Tensor:
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(2))


def test_tokens_at_the_native_size_are_those_of_timm_without_the_class_token() -> None:
    vit = timm_vit()
    expected = vit.forward_features(images(32, 32))[:, 1:]
    torch.testing.assert_close(ours(vit)(images(32, 32)), expected)


def ours(vit: Any) -> ViTEncoder:
    """The encoder with the same weights."""
    encoder = build()
    encoder.vit.load_state_dict({key: value for key, value in vit.state_dict().items() if not key.startswith("head.")})
    return encoder


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (3, 7), (2, 2), (1, 5)])
def test_position_embeddings_at_another_grid_are_bilinear(rows: int, columns: int) -> None:
    """timm's ViT of the new size has the same tokens if its embeddings are interpolated by torch."""
    vit = timm_vit()
    class_token, grid = vit.pos_embed[:, :1], vit.pos_embed[:, 1:].unflatten(1, (4, 4)).movedim(-1, 1)
    resized = interpolate(grid, size=(rows, columns), mode="bilinear", align_corners=False)
    native = timm_vit(img_size=(8 * rows, 8 * columns))
    positions = torch.cat([class_token, resized.flatten(2).movedim(1, 2)], dim=1)
    native.load_state_dict(vit.state_dict() | {"pos_embed": positions})
    inputs = images(8 * rows, 8 * columns)
    tokens = ours(vit)(inputs)
    assert tokens.shape == (2, rows * columns, 32)
    torch.testing.assert_close(tokens, native.forward_features(inputs)[:, 1:], rtol=1e-4, atol=1e-5)


def test_patches_come_in_reading_order() -> None:
    """Without blocks, a token depends only on its own patch."""
    encoder, inputs = build(depth=0), images(24, 40, number=1)
    changed = inputs.clone()
    changed[:, :, 8:16, 24:32] += 1  # row 1, column 3 of 3 x 5
    differs = (encoder(inputs) != encoder(changed)).any(dim=-1)[0]
    assert differs.nonzero().flatten().tolist() == [1 * 5 + 3]


def test_tokens_of_a_batch_are_those_of_its_images() -> None:
    encoder, inputs = build(), images(24, 40, number=3)
    single = torch.cat([encoder(image[None]) for image in inputs])
    torch.testing.assert_close(encoder(inputs), single, rtol=1e-4, atol=1e-5)


def test_drop_path_rises_linearly_to_its_rate() -> None:
    blocks = build_vit(NAME, OPTIONS | {"depth": 5}, None, drop_path=0.2).vit.blocks
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "bin"])
@pytest.mark.parametrize("num_classes", [0, 10])
def test_every_weight_comes_from_the_file(tmp_path: Path, suffix: str, num_classes: int) -> None:
    theirs = timm_vit(num_classes).state_dict()
    encoder = build(saved(tmp_path / f"vit.{suffix}", theirs))
    assert all(torch.equal(weight, theirs[name]) for name, weight in encoder.vit.state_dict().items())


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("wrong", ["lacks one", "has one more", "has none"])
def test_a_file_without_exactly_the_weights_is_refused(tmp_path: Path, suffix: str, wrong: str) -> None:
    weights = timm_vit().state_dict()
    if wrong == "lacks one":
        del weights["blocks.1.mlp.fc1.bias"]
    elif wrong == "has one more":
        weights["blocks.2.mlp.fc1.bias"] = torch.zeros(1)
    else:
        weights = {}
    with pytest.raises(ValueError, match=r"^the weights '\S+vit\.\w+' do not fit the encoder"):
        build(saved(tmp_path / f"vit.{suffix}", weights))


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"embed_dim": 64}, r"30 of its tensors: cls_token is \(1, 1, 32\), expected \(1, 1, 64\); pos_embed is"),
        (
            {"depth": 3},
            r"12 of its tensors: blocks\.2\.norm1\.weight is missing, expected \(32,\); blocks\.2\.norm1\.bias is",
        ),
        ({"depth": 1}, r"12 of its tensors: blocks\.1\.\S+ is \(\d+.*\), expected none"),
        (
            {"patch_size": 16},
            r"2 of its tensors: pos_embed is .*; patch_embed\.proj\.weight is \(32, 3, 8, 8\), expected \(32, 3",
        ),
        ({"img_size": 40}, r"1 of its tensors: pos_embed is \(1, 17, 32\), expected \(1, 26, 32\)"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path: Path, option: dict[str, int], complaint: str) -> None:
    file = saved(tmp_path / "vit.safetensors", timm_vit().state_dict())
    with pytest.raises(ValueError, match=r"^the weights '\S+vit\.safetensors' do not fit the encoder in " + complaint):
        build(file, **option)


@pytest.mark.parametrize("name", ["vit.safetensors", "vit.pth", "vit.bin", "vit.npz", "absent.pth", "absent.npz"])
@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^the weights '\S+{name}' (cannot be read: |are neither a file )"):
        build(tmp_path / name)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    file = saved(tmp_path / f"vit.{suffix}", timm_vit().state_dict())
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"vit\.{suffix}' cannot be read: [^\n]*$"):
        build(file)


@pytest.mark.parametrize(("written", "read"), [("vit.safetensors", "vit.pth"), ("vit.pth", "vit.safetensors")])
def test_a_file_with_the_suffix_of_another_kind_is_refused(tmp_path: Path, written: str, read: str) -> None:
    file = saved(tmp_path / written, timm_vit().state_dict()).rename(tmp_path / read)
    with pytest.raises(ValueError, match=rf"{read}' cannot be read: "):
        build(file)


def test_the_folder_of_a_file_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "model.safetensors", timm_vit().state_dict())
    with pytest.raises(ValueError, match=r"are neither a file nor a name on timm's hub"):
        build(tmp_path)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("a pickle ran code",))


@pytest.mark.parametrize("suffix", ["pth", "bin", "npz", "safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, zipped: bool
) -> None:
    file = tmp_path / f"vit.{suffix}"
    torch.save({"state_dict": timm_vit().state_dict(), "by": Harmful()}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=rf"vit\.{suffix}' cannot be read: "):
        build(file)
    assert "ran code" not in capsys.readouterr().out


NO_VIT = r"^'\w+' is not a ViT whose tokens are square patches; choose wide_resnet38 or a ViT of timm's \("


@pytest.mark.parametrize(
    ("name", "options", "argument", "message"),
    [
        (
            "vit_smal_patch16_224",
            {},
            "name",
            r"^timm has no 'vit_smal_patch16_224'; did you mean vit_small_patch16_224\?$",
        ),
        (
            "vit_small_patch16_224.by_nobody",
            {},
            "name",
            r"no weights '\S+by_nobody'; valid are .*vit_small_patch16_224\.dino",
        ),
        ("resnet18", {}, "name", NO_VIT),
        ("convnext_atto", {}, "name", NO_VIT),
        ("swin_tiny_patch4_window7_224", {}, "name", NO_VIT),
        ("vit_small_r26_s32_224", {}, "name", NO_VIT),  # its patches are those of a ResNet
        ("naflexvit_base_patch16_gap", {}, "name", NO_VIT),
        (NAME, {"wings": 2}, "options", r"^timm cannot build '\w+' with the options \{'wings': 2\}: .*wings"),
        (NAME, OPTIONS | {"num_heads": 5}, "options", r"^timm cannot build '\w+' with the options .*num_heads"),
    ],
)
def test_a_model_that_timm_cannot_build_or_is_not_a_vit_is_refused(
    name: str, options: dict[str, int], argument: str, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message) as refused:
        build_image_encoder(name, options, None, drop_path=0.0)
    assert refused.value.argument == argument


def test_the_name_selects_the_kind_of_encoder() -> None:
    vit = build_image_encoder(NAME, OPTIONS, None, drop_path=0.0)
    resnet = build_image_encoder("wide_resnet38", {"width": 1}, None, drop_path=0.0)
    assert isinstance(vit, ViTEncoder)
    assert isinstance(resnet, WideResNet38)
    for encoder in (vit, resnet):
        tokens = encoder(images(24, 40))
        assert tokens.shape == (2, 24 * 40 // encoder.patch_size**2, encoder.num_features)


HUB_NAME = f"{NAME}.augreg_in21k"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder for the weights `HUB_NAME` in an offline copy of the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    copy = tmp_path / f"models--timm--{HUB_NAME}"
    folder = copy / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (copy / "refs").mkdir()
    (copy / "refs" / "main").write_text("0" * 40)
    return folder


def build_from_hub(weights: str = HUB_NAME, name: str = NAME, **options: int) -> ViTEncoder:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2}
    return build_vit(name, sizes | options, weights, drop_path=0.0).eval()


def hub_vit() -> Any:
    """The ViT of `build_from_hub`; the number of heads follows from the name."""
    return timm_vit(embed_dim=48, num_heads=3)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_every_weight_comes_from_the_copy_of_the_hub(hub: Path, file: str) -> None:
    theirs = hub_vit().state_dict()
    saved(hub / file, theirs)
    encoder = build_from_hub()
    assert all(torch.equal(weight, theirs[name]) for name, weight in encoder.vit.state_dict().items())


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"depth": 1}, r"12 of its tensors: blocks\.1\.\S+ is \(48.*\), expected none"),
        ({"depth": 3}, r"blocks\.2\.norm1\.weight is missing, expected \(48,\)"),
        ({"img_size": 64}, r"pos_embed is \(1, 17, 48\), expected \(1, 65, 48\)"),
        ({"patch_size": 4, "img_size": 16}, r"patch_embed\.proj\.weight is \(48, 3, 8, 8\), expected \(48, 3, 4, 4\)"),
        ({"num_heads": 2}, r"fix the number of heads; leave out the option num_heads"),
    ],
)
def test_hub_weights_are_not_adapted_to_options(hub: Path, option: dict[str, int], complaint: str) -> None:
    saved(hub / "model.safetensors", hub_vit().state_dict())
    with pytest.raises(ValueError, match=rf"^the weights '{HUB_NAME}' .*{complaint}"):
        build_from_hub(**option)


def test_without_the_hub_weights_are_missing(hub: Path) -> None:
    with pytest.raises(
        MissingWeightsError, match=rf"^the weights '{HUB_NAME}' cannot be loaded from timm's hub: [^\n]*$"
    ):
        build_from_hub()


@pytest.mark.parametrize(
    "weights", ["data/raw/vit_small/model.safetensors", f"{NAME}.by_nobody", "vit_of_nobody.augreg"]
)
def test_weights_of_an_unknown_name_are_missing(weights: str) -> None:
    with pytest.raises(MissingWeightsError, match=rf"^the weights '{weights}' are neither a file nor a name on "):
        build_from_hub(weights)


@pytest.mark.parametrize("name", [f"{NAME}.augreg_in21k", NAME])
def test_hub_weights_of_another_vit_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' are for the ViT '{NAME}', not for 'vit_tiny_patch16_384'"):
        build_from_hub(name, name="vit_tiny_patch16_384")


def test_hub_weights_bring_their_normalisation(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(hub / "model.safetensors", hub_vit().state_dict())
    assert (build_from_hub().mean, build_from_hub().std) == ((0.5,) * 3, (0.5,) * 3)
    published = timm.models.get_pretrained_cfg(HUB_NAME)
    published.mean, published.std = IMAGENET
    monkeypatch.setattr("tseg.model.image_encoder.get_pretrained_cfg", lambda name: published)
    assert (build_from_hub().mean, build_from_hub().std) == IMAGENET


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SATELLITE = ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
"""Of DINOv3's second weights."""


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("vit_small_patch14_dinov2", "own.safetensors", IMAGENET),  # the only tag
        ("vit_tiny_patch16_224", "own.safetensors", HALF),  # two tags that agree
        ("vit_small_patch16_224.dino", "own.safetensors", IMAGENET),
        ("vit_small_patch16_224", "vit_small_patch16_224.dino.pth", IMAGENET),
        ("vit_small_patch16_224", "vit_small_patch16_224.augreg_in1k.pth", HALF),
        ("vit_small_patch16_224", "vit_small_patch16_224.dino", IMAGENET),  # a name on the hub
        ("vit_large_patch16_dinov3.sat493m", "vit_large_patch16_dinov3.lvd1689m.pth", SATELLITE),
        ("vit_small_patch16_224.dino", None, IMAGENET),
        ("vit_small_patch14_dinov2", None, IMAGENET),
        ("vit_tiny_patch16_224", None, HALF),
    ],
)
def test_the_normalisation_is_that_of_the_tag(
    tmp_path: Path, name: str, weights: str | None, expected: tuple[Any, Any]
) -> None:
    if weights is not None and Path(weights).suffix in (".pth", ".safetensors"):
        (tmp_path / weights).touch()
        weights = str(tmp_path / weights)
    assert normalisation(name, weights) == expected


@pytest.mark.parametrize(
    ("name", "examples"),
    [
        (
            "vit_small_patch16_224",
            r"vit_small_patch16_224\.\w+ has \(0\.5, .*vit_small_patch16_224\.dino has \(0\.485, 0\.456, 0\.406\) and",
        ),
        ("vit_large_patch16_dinov3", r"sat493m has \(0\.43, 0\.411, 0\.296\)"),
        ("vit_so150m_patch16_reg4_map_256", "set mean and std$"),  # timm has no weights, and 0.5 only by default
    ],
)
def test_a_file_that_does_not_say_its_normalisation_is_refused(tmp_path: Path, name: str, examples: str) -> None:
    (tmp_path / "own.pth").touch()
    with pytest.raises(
        ArgumentError, match=rf"own\.pth' do not say how their images were normalised; .*{examples}"
    ) as no:
        normalisation(name, str(tmp_path / "own.pth"))
    assert no.value.argument == "mean"


def test_given_mean_and_std_have_precedence(tmp_path: Path) -> None:
    given: Any = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    file = saved(tmp_path / f"{NAME}.augreg_in21k.pth", timm_vit().state_dict())
    for weights in (None, str(file)):
        encoder = build_image_encoder(NAME, OPTIONS, weights, 0.0, **given)
        assert (encoder.mean, encoder.std) == (given["mean"], given["std"])
    resnet = build_image_encoder("wide_resnet38", {"width": 1}, None, 0.0, **given)
    assert (resnet.mean, resnet.std) == (given["mean"], given["std"])
    assert build_image_encoder("wide_resnet38", {"width": 1}, None, 0.0).mean == IMAGENET[0]


def test_threads_share_an_encoder_at_different_sizes() -> None:
    """Inference changes nothing in the module."""
    encoder = build()
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    inputs = [images(8 * rows, 8 * columns) for rows, columns in ((4, 4), (3, 7), (7, 3), (5, 6))]
    with torch.no_grad():
        expected = [encoder(each) for each in inputs]

        def repeat(number: int) -> list[Tensor]:
            with torch.inference_mode():
                return [encoder(inputs[number]) for _ in range(20)]

        with ThreadPoolExecutor(4) as threads:
            for tokens, outputs in zip(expected, threads.map(repeat, range(4)), strict=True):
                assert all(torch.equal(tokens, output) for output in outputs)
    assert all(torch.equal(weight, before[name]) for name, weight in encoder.state_dict().items())


def saved(path: Path, weights: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path
