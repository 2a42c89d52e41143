"""`tseg encode`: compute the tokens of a frozen encoder for a split, once."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tseg.encoding.tokens import Entry, Tokens, write_tokens
from tseg.encoding.views import views_of
from tseg.images import normalised, open_image
from tseg.model.image_encoder import ImageEncoder, build_image_encoder
from tseg.model.text_encoder import ClassEncoder, TextEncoder, build_text_encoder
from tseg.provenance import TokensProvenance
from tseg.records import read_records
from tseg.settings.encodings import CropViews, PatchEncoding, TextEncoding, WholeViews
from tseg.transforms import mirror_words

BATCH_SIZE = 32
"""Views of one size, or expressions, that an encoder sees at once."""


def encode_split(encoding: PatchEncoding | TextEncoding, output: Path, device: torch.device) -> None:
    """Write the tokens that `encoding` describes to `output` and the folder of the same name.

    Raises ValueError if an image cannot be read, or if the disk is too full.
    """
    records, provenance = read_records(Path(encoding.records))
    if isinstance(encoding, PatchEncoding):
        encoder = build_image_encoder(**encoding.encoder.model_dump()).eval().to(device)
        encode_images(encoder, records, encoding.views, output)
    else:
        text_encoder = build_text_encoder(encoding.encoder.model_dump(), None).eval().to(device)
        assert isinstance(text_encoder, TextEncoder), "class encodings are not encoded"
        # Training compares an image with all classes, also with those that no image of the split has.
        expressions = [*(provenance.classes or []), *records["expression"]]
        encode_expressions(text_encoder, expressions, encoding.mirrored, output)


@torch.inference_mode()
def encode_images(encoder: ImageEncoder, records: pd.DataFrame, views: CropViews | WholeViews, output: Path) -> None:
    """Write the patch tokens of all `views` of every image of `records`."""
    columns = (records[name].tolist() for name in ("image_id", "file_name", "height", "width"))
    images = {image_id: rest for image_id, *rest in zip(*columns, strict=True)}
    device = next(encoder.parameters()).device

    def entries() -> Iterator[Entry]:
        for image_id, (_, height, width) in images.items():
            for number, view in enumerate(views_of(views, image_id, width, height, encoder.patch_size)):
                columns, rows = (side // encoder.patch_size for side in view.size)
                yield Entry(image_id, number, rows, columns)

    def encode(members: Sequence[Entry]) -> Iterator[np.ndarray]:
        for image_id, of_image in groupby(members, lambda entry: entry.key):
            file_name, height, width = images[image_id]
            image = open_image(file_name, size=(width, height))
            all_views = views_of(views, image_id, width, height, encoder.patch_size)
            for _, of_size in groupby(of_image, lambda entry: (entry.height, entry.width)):
                seen = [normalised(all_views[entry.view](image), encoder.mean, encoder.std) for entry in of_size]
                for batch in torch.from_numpy(np.stack(seen)).split(BATCH_SIZE):
                    yield from encoder(batch.to(device)).float().cpu().numpy()

    provenance = TokensProvenance(
        encoder=fingerprint(encoder),
        num_features=encoder.num_features,
        images=_digest(
            f"{image_id} {size} {hashlib.sha256(Path(file_name).read_bytes()).hexdigest()}"
            for image_id, (file_name, *size) in images.items()
        ),
        views=views.model_dump(mode="json"),
    )
    write_tokens(output, entries(), encode, provenance)


@torch.inference_mode()
def encode_expressions(encoder: TextEncoder, own: Iterable[str], mirrored: bool, output: Path) -> None:
    """Write the tokens of the distinct expressions in `own` and, if `mirrored`, of their mirror images."""
    distinct = dict.fromkeys(own)
    expressions = list(distinct | dict.fromkeys(map(mirror_words, distinct if mirrored else ())))

    def encode(members: Sequence[Entry]) -> Iterator[np.ndarray]:
        for start in range(0, len(members), BATCH_SIZE):
            tokens = encoder([entry.key for entry in members[start : start + BATCH_SIZE]])
            yield from tokens.float().cpu().numpy()[:, None]

    provenance = TokensProvenance(
        encoder=fingerprint(encoder), num_features=encoder.num_features, images=_digest(expressions), views=None
    )
    write_tokens(output, [Entry(expression, 0, 1, 1) for expression in expressions], encode, provenance)


def open_tokens(
    path: Path, encoder: ImageEncoder | TextEncoder | ClassEncoder, views: CropViews | WholeViews | None
) -> Tokens:
    """Open tokens. Raises ValueError if another encoder computed them, or if they are of other `views`."""
    tokens = Tokens(path)
    if tokens.provenance.encoder != fingerprint(encoder):
        raise ValueError(f"{path} holds the tokens of another encoder; delete it and make it again with `tseg encode`")
    if tokens.provenance.views != (views and views.model_dump(mode="json")):
        raise ValueError(f"{path} holds other views of the images; delete it and make it again with `tseg encode`")
    return tokens


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


def fingerprint(encoder: ImageEncoder | TextEncoder | ClassEncoder) -> str:
    """A hash of what determines an encoder's tokens: layers, weights, and how it sees images or expressions."""
    names = ("mean", "std", "positions", "pooling")
    seen: dict[str, object] = {name: getattr(encoder, name) for name in names if hasattr(encoder, name)}
    # The text of a module names sizes, activations and norms, but no heads.
    seen["num_heads"] = [getattr(module, "num_heads", None) for module in encoder.modules()]
    if isinstance(encoder, TextEncoder):
        seen["tokenizer"] = encoder.tokenizer.to_str()
    digest = hashlib.sha256(f"{encoder} {seen}".encode())
    for name, weight in encoder.state_dict().items():
        digest.update(name.encode() + weight.cpu().numpy().tobytes())
    return digest.hexdigest()[:32]
