"""TSEG: weakly supervised segmentation from words (Strudel, Laptev, Schmid 2022).

>>> from tseg import Segmenter

The names in `__all__` are imported on first use, so that `import tseg` stays instant.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tseg.segmenting.segmenter import Segmenter

    __version__: str

__all__ = ["Segmenter", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Segmenter":
        from tseg.segmenting.segmenter import Segmenter

        return Segmenter
    if name == "__version__":
        from importlib.metadata import version

        return version("tseg")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
