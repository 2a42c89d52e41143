"""What both encoders share: which of their parts learn."""

from collections.abc import Sequence
from typing import Literal, Self

from torch import nn

from tseg.model.weights import ArgumentError

Trainable = Literal["all", "heads"] | int
"""What learns of an encoder: all of it, nothing (only TSEG's heads learn), or its last blocks, by their number."""


class Encoder(nn.Module):
    """An encoder that learns as a whole, in its last blocks, or not at all.

    What does not learn gets no gradients and stays in evaluation mode, without dropout and drop path.
    """

    def __init__(self) -> None:
        super().__init__()
        self._learning: list[nn.Module] | None = None
        """The parts that learn; None: all."""

    def restrict(self, trainable: Trainable, blocks: Sequence[nn.Module] | None, last: Sequence[nn.Module]) -> None:
        """Let only a part of the encoder learn.

        `blocks`: the blocks of which a number in `trainable` counts the last; None if the encoder has no such blocks.
        `last`: the modules after them. Raises ArgumentError if there are fewer blocks.
        """
        if trainable == "all":
            return
        learning: list[nn.Module] = []
        if trainable != "heads":
            if blocks is None:
                raise ArgumentError("trainable", "this encoder has no blocks to count; choose all or heads")
            if not 1 <= trainable <= len(blocks):
                raise ArgumentError(
                    "trainable",
                    f"{trainable} blocks cannot learn, as there are {len(blocks)}; choose 1 to {len(blocks)}",
                )
            learning = [*blocks[len(blocks) - trainable :], *last]
        self._learning = learning
        self.requires_grad_(False)
        for part in learning:
            part.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for what does not learn."""
        if self._learning is None:
            return super().train(mode)
        super().train(False)
        for part in self._learning:
            part.train(mode)
        return self
