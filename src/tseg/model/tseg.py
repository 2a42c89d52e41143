"""TSEG: patch-text similarities of images and expressions (section 3.1)."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from tseg.files import atomic_write, require_file
from tseg.model.image_encoder import ImageEncoder, build_image_encoder
from tseg.model.text_encoder import ClassEncoder, TextEncoder, rebuild_text_encoder
from tseg.model.wide_resnet38 import WideResNet38
from tseg.provenance import ModelProvenance


class TSEG(nn.Module):
    """Two encoders, two projections to a common space, and a temperature."""

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder | ClassEncoder,
        *,
        embed_dim: int,
        patch_hidden: int | None = None,
        tau: float,
    ):
        """Project to `embed_dim` dimensions. `patch_hidden`: hidden units of the projection of patches."""
        super().__init__()
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.project_patches = _projection(image_encoder.num_features, patch_hidden, embed_dim)
        self.project_expressions = nn.Linear(text_encoder.num_features, embed_dim)
        # Learning the logarithm keeps tau positive.
        self.log_tau = nn.Parameter(torch.tensor(math.log(tau)))

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.image_encoder.patch_size

    @property
    def tau(self) -> Tensor:
        """The temperature, a positive scalar; similarities lie in [-tau, tau]."""
        return self.log_tau.exp()

    def compile_encoders(self) -> None:
        """Let torch compile both encoders when they first run."""
        self.image_encoder.compile()
        if isinstance(self.text_encoder, TextEncoder):
            self.text_encoder.transformer.compile(dynamic=True)  # expressions differ in number and length

    def embed_patches(self, images: Tensor) -> Tensor:
        """Unit vectors x, float32 (B, N, D), of B images.

        They are given as pixels, uint8 (B, H, W, 3), as normalised values (B, 3, H, W), or as tokens (B, N, D_I).
        """
        if images.ndim == 3:
            tokens = images.float()
        else:
            tokens = self.image_encoder(self._normalised(images) if images.dtype == torch.uint8 else images)
        return normalize(self.project_patches(tokens).float(), dim=-1)

    def _normalised(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 (B, H, W, 3), as the image encoder expects them: float32 (B, 3, H, W)."""
        values = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        encoder = self.image_encoder
        mean, std = (
            torch.tensor(channels)[:, None, None].to(values.device, non_blocking=True)
            for channels in (encoder.mean, encoder.std)
        )
        return (values / 255 - mean) / std

    def embed_expressions(self, expressions: list[str] | Tensor) -> Tensor:
        """Unit vectors y, float32 (L, D), of L expressions or their tokens (L, D_T)."""
        tokens = expressions.float() if isinstance(expressions, Tensor) else self.text_encoder(expressions)
        return normalize(self.project_expressions(tokens).float(), dim=-1)

    def forward(self, images: Tensor, expressions: list[str] | Tensor) -> Tensor:
        """S, float32 (B, N, L): s_ij = tau x_i . y_j (eq. 1), every image against every expression.

        Either may be given as the tokens of its encoder.
        """
        return self.compare(self.embed_patches(images), self.embed_expressions(expressions))

    def compare(self, patches: Tensor, texts: Tensor) -> Tensor:
        """S, float32 (B, N, L), of embedded patches (B, N, D) and expressions (L, D)."""
        with torch.autocast(patches.device.type, enabled=False):
            return self.tau * patches @ texts.T


def _projection(num_features: int, hidden: int | None, embed_dim: int) -> nn.Module:
    """The paper's linear projection or, beyond the paper, two linear maps with `hidden` units between them."""
    if hidden is None:
        return nn.Linear(num_features, embed_dim)
    return nn.Sequential(nn.Linear(num_features, hidden), nn.GELU(), nn.Linear(hidden, embed_dim))


def save_model(path: Path, model: TSEG, architecture: dict[str, Any], provenance: ModelProvenance) -> None:
    """Write weights, tokenizer, `architecture` and `provenance` to one safetensors file.

    `architecture` has the arguments of `build_image_encoder` and `build_text_encoder`, embed_dim, patch_hidden and tau.
    """
    text_encoder = model.text_encoder
    language = isinstance(text_encoder, TextEncoder)
    # The weights that determined the normalisation are not needed to load the model.
    image_encoder = {"mean": model.image_encoder.mean, "std": model.image_encoder.std}
    header = {
        "architecture": architecture | {"image_encoder": architecture["image_encoder"] | image_encoder},
        "language_model": text_encoder.transformer.config.to_dict() if language else None,
        "tokenizer": text_encoder.tokenizer.to_str() if language else None,
        "provenance": provenance.to_fields(),
    }
    with atomic_write(path) as partial:
        # One key: safetensors writes several in varying order, and the same model must give the same bytes.
        # A copy of each weight: safetensors refuses those that share memory, as T5's embeddings do.
        weights = {name: weight.clone() for name, weight in model.state_dict().items()}
        save_file(weights, partial, metadata={"tseg": json.dumps(header, sort_keys=True)})


def load_model(path: Path) -> tuple[TSEG, ModelProvenance]:
    """Read a model that `save_model` wrote, ready for inference on the CPU, and its provenance.

    Raises ValueError if `path` is not such a file.
    """
    hint = "train it with `tseg train`"
    try:
        with safe_open(require_file(path, hint), framework="pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})["tseg"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        architecture, found = header["architecture"], header["provenance"]
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a model of `tseg train` ({error}); {hint}") from error
    provenance = ModelProvenance.from_fields(found, path)
    try:
        described = architecture["image_encoder"]
        # JSON has no tuples.
        channels = {key: tuple(described[key]) for key in ("mean", "std")}
        model = TSEG(
            build_image_encoder(**described | channels | {"weights": None}),
            rebuild_text_encoder(architecture["text_encoder"], header["language_model"], header["tokenizer"]),
            embed_dim=architecture["embed_dim"],
            patch_hidden=architecture["patch_hidden"],
            tau=architecture["tau"],
        )
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} was not written by this version of `tseg train`: {error}; train it again") from error
    if isinstance(model.image_encoder, WideResNet38) and described["weights"] is not None:
        model.image_encoder.freeze()
    return model.eval(), provenance
