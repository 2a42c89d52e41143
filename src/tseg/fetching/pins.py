"""Pins: the sha256 of files without a published checksum, recorded at the first download and verified afterwards."""

import re
from collections.abc import Mapping
from pathlib import Path

from tseg.files import atomic_write


def pins_path(raw_dir: Path, source: str) -> Path:
    """Path of a source's pins, in the format of `sha256sum --check` run in the same folder."""
    return raw_dir / "downloads" / f"{source}.sha256"


def read_pins(raw_dir: Path, source: str) -> dict[str, str]:
    """The pinned sha256 of each file of a source, by name. Raises ValueError for a malformed line."""
    path = pins_path(raw_dir, source)
    pins = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        match = re.fullmatch(rf"([0-9a-f]{{64}}) [ *]{re.escape(source)}/(.+)", line)
        if not match:
            raise ValueError(f"{path}: the line {line!r} does not have the form <sha256>  {source}/<name>; delete it")
        pins[match[2]] = match[1]
    return pins


def write_pins(raw_dir: Path, source: str, pins: Mapping[str, str]) -> None:
    """Write the pins of a source atomically."""
    with atomic_write(pins_path(raw_dir, source)) as partial:
        partial.write_text("".join(f"{sha256}  {source}/{name}\n" for name, sha256 in sorted(pins.items())))
