import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from tseg.training.targets import TfidfTargets, WithoutSimilar, identity_targets

EXPRESSIONS = ["red square", "brown cat", "tabby cat", "left square"]
POSITIVES = [frozenset({"red square", "left square"}), frozenset({"tabby cat"}), frozenset({"something else"})]


def test_an_expression_is_positive_only_for_the_images_that_have_it() -> None:
    expected = [[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert identity_targets(POSITIVES, EXPRESSIONS).tolist() == expected


def test_an_expression_of_two_images_is_positive_for_both() -> None:
    shared = [frozenset({"red square"}), frozenset({"red square", "brown cat"})]
    assert identity_targets(shared, EXPRESSIONS)[:, 0].tolist() == [1, 1]


def test_identity_requires_the_exact_expression() -> None:
    assert identity_targets([frozenset({"red squares", "Red square", "square"})], EXPRESSIONS).sum() == 0


def test_permuting_expressions_permutes_targets() -> None:
    order = [2, 0, 3, 1]
    permuted = identity_targets(POSITIVES, [EXPRESSIONS[index] for index in order])
    assert permuted.tolist() == identity_targets(POSITIVES, EXPRESSIONS)[:, order].tolist()


TRAINING = ["a brown cat", "tabby cat", "tabby cat", "red square", "large red square on the left", "dog", "brown dog"]


def test_tfidf_is_the_largest_cosine_similarity_with_a_positive() -> None:
    """Against scikit-learn's own, one image and one expression at a time."""
    expressions = [*TRAINING[:2], "cat", "square dog", "unheard of", "the large dog on the red left"]
    positives = [frozenset(TRAINING[:3]), frozenset({"brown dog"}), frozenset({"brown square", "the zebra"})]
    vectorizer = TfidfVectorizer().fit(TRAINING)
    targets = TfidfTargets(TRAINING)(positives, expressions)
    assert (targets.dtype, targets.shape) == (torch.float32, (3, 6))
    for image, own in enumerate(positives):
        for index, expression in enumerate(expressions):
            vectors = vectorizer.transform([expression, *own])
            expected = cosine_similarity(vectors[:1], vectors[1:]).max()
            assert targets[image, index].item() == pytest.approx(expected, abs=1e-6)


def test_expressions_that_share_a_word_are_partly_positive() -> None:
    """The paper's example: a tabby cat in one image and a brown cat in another."""
    targets = TfidfTargets(TRAINING)([{"tabby cat"}], ["brown cat", "tabby cat", "brown dog"])
    assert 0.1 < targets[0, 0].item() < 0.9
    assert targets[0, 1:].tolist() == [1, 0]


def test_a_rarer_shared_word_gives_a_larger_target() -> None:
    common = ["tabby cat"] * 20 + ["brown cat", "brown dog"]
    by_cat, by_brown = TfidfTargets(common)([{"brown cat"}], ["old cat", "brown zebra"])[0].tolist()
    assert by_cat < by_brown


def test_an_identical_expression_is_exactly_positive_even_of_unknown_words() -> None:
    expressions = ["unheard of", "?", "", "large red square on the left", "tabby cat"]
    targets = TfidfTargets(TRAINING)([frozenset({expression}) for expression in expressions], expressions)
    assert (targets.diagonal() == 1).all()
    assert targets[:3].sum() == 3
    assert targets.max() == 1


def test_tfidf_of_expressions_without_common_words_is_identity() -> None:
    apart = ["red square", "tabby cat", "large dog"]
    positives = [frozenset(apart[:2]), frozenset(apart[2:]), frozenset({"zebra"}), frozenset()]
    np.testing.assert_allclose(TfidfTargets(apart)(positives, apart), identity_targets(positives, apart), atol=1e-6)


def test_tfidf_does_not_depend_on_the_batchs_other_expressions() -> None:
    soft, everything = TfidfTargets(TRAINING), list(dict.fromkeys(TRAINING))
    together = soft(POSITIVES, everything)
    for number, expression in enumerate(everything):
        alone = torch.cat([soft([own], [expression]) for own in POSITIVES])
        torch.testing.assert_close(alone[:, 0], together[:, number])


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.8])
def test_pairs_whose_words_nearly_agree_do_not_count(threshold: float) -> None:
    """Against scikit-learn's own cosines; an image's own expressions always count."""
    expressions = [*TRAINING[:2], "cat", "red square", "unheard of"]
    positives = [frozenset({"tabby cat"}), frozenset({"brown dog", "red square"})]
    vectorizer = TfidfVectorizer().fit(TRAINING)
    counted = WithoutSimilar(TRAINING, threshold)(positives, expressions)
    assert (counted.dtype, counted.shape) == (torch.float32, (2, 5))
    for image, own in enumerate(positives):
        for index, expression in enumerate(expressions):
            cosines = cosine_similarity(vectorizer.transform([expression]), vectorizer.transform(list(own)))
            assert counted[image, index] == float(expression in own or cosines.max() <= threshold)


def test_expressions_that_differ_only_in_punctuation_do_not_count_against_each_other() -> None:
    counted = WithoutSimilar(TRAINING, 0.99)([{"tabby cat"}], ["tabby cat", "Tabby cat!", "a tabby cat", "brown cat"])
    assert counted.tolist() == [[1, 0, 0, 1]]
