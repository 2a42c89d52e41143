"""What the scores of a batch should say (section 3.3; Table 2c)."""

from collections.abc import Iterable, Sequence, Set

import numpy as np
import torch
from torch import Tensor


def identity_targets(positives: Sequence[Set[str]], expressions: Sequence[str]) -> Tensor:
    """Ground truth zbar, float32 (B, L): 1 where image b has exactly the expression l in its `positives`, else 0."""
    return torch.tensor([[float(expression in own) for expression in expressions] for own in positives])


class TfidfTargets:
    """Soft ground truth by the words that expressions share (Table 2c, "tf-idf").

    zbar of image b and expression l is the largest cosine similarity of the tf-idf vector of l with those of the
    image's positives: an image of a tabby cat is in part positive for "brown cat". It is exactly 1 where l is one of
    the positives, whatever its words, and 0 where it shares no known word with any of them.
    """

    # ASSUME: the paper says "a tf-idf score". Here an expression is a document, words and weights are scikit-learn's
    # (two letters or more, smooth idf), and of several similarities the largest counts.
    def __init__(self, expressions: Iterable[str]):
        """Learn the weights of words from the training `expressions`, each as often as it is said."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer().fit(expressions)

    def __call__(self, positives: Sequence[Set[str]], expressions: Sequence[str]) -> Tensor:
        """Ground truth zbar, float32 (B, L) in [0, 1]."""
        places = {said: place for place, said in enumerate(dict.fromkeys(said for own in positives for said in own))}
        asked, had = (self.vectorizer.transform(texts) for texts in (expressions, places))
        similarities = np.asarray((asked @ had.T).todense(), np.float32).clip(max=1)
        largest = [similarities[:, [places[said] for said in own]].max(axis=1, initial=0) for own in positives]
        return torch.maximum(torch.from_numpy(np.stack(largest)), identity_targets(positives, expressions))
