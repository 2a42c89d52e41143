"""Targets of the scores of a batch (section 3.3; Table 2c)."""

from collections.abc import Iterable, Sequence, Set

import numpy as np
import torch
from torch import Tensor


def identity_targets(positives: Sequence[Set[str]], expressions: Sequence[str]) -> Tensor:
    """Ground truth zbar, float32 (B, L): 1 where image b has exactly the expression l in its `positives`, else 0."""
    return torch.tensor([[float(expression in own) for expression in expressions] for own in positives])


class TfidfTargets:
    """Soft ground truth from the words that expressions share (Table 2c, "tf-idf").

    zbar of image b and expression l is the largest cosine similarity between the tf-idf vector of l and those of the
    image's positives: an image of a tabby cat is partly positive for "brown cat". It is exactly 1 if l is one of the
    positives, even without known words, and 0 if l shares no known word with any of them.
    """

    # ASSUME: the paper says "a tf-idf score". Here an expression is a document, words and weights are scikit-learn's
    # (two letters or more, smooth idf), and the largest of several similarities is used.
    def __init__(self, expressions: Iterable[str]):
        """Learn the weights of words from the training `expressions`, including repetitions."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer().fit(expressions)

    def __call__(self, positives: Sequence[Set[str]], expressions: Sequence[str]) -> Tensor:
        """Ground truth zbar, float32 (B, L) in [0, 1]."""
        distinct = dict.fromkeys(positive for own in positives for positive in own)
        indices = {positive: index for index, positive in enumerate(distinct)}
        rows, columns = (self.vectorizer.transform(texts) for texts in (expressions, indices))
        similarities = np.asarray((rows @ columns.T).todense(), np.float32).clip(max=1)
        largest = [similarities[:, [indices[positive] for positive in own]].max(axis=1, initial=0) for own in positives]
        return torch.maximum(torch.from_numpy(np.stack(largest)), identity_targets(positives, expressions))


class WithoutSimilar:
    """Pairs that count if those whose words nearly agree count neither way (not in the paper).

    An image of a tabby cat need not lack the "cat" of another image. A pair of an image and an expression that it has
    always counts.
    """

    def __init__(self, expressions: Iterable[str], threshold: float):
        """Learn the weights of words from the training `expressions`, as `TfidfTargets` does."""
        self.cosines = TfidfTargets(expressions)
        self.threshold = threshold

    def __call__(self, positives: Sequence[Set[str]], expressions: Sequence[str]) -> Tensor:
        """1 for pairs that count, float32 (B, L); 0 where the target of `TfidfTargets` is above the threshold."""
        dissimilar = (self.cosines(positives, expressions) <= self.threshold).float()
        return torch.maximum(dissimilar, identity_targets(positives, expressions))
