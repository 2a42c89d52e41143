from tseg.training.targets import identity_targets

EXPRESSIONS = ["red square", "brown cat", "tabby cat", "left square"]
POSITIVES = [frozenset({"red square", "left square"}), frozenset({"tabby cat"}), frozenset({"something else"})]


def test_an_expression_is_positive_for_just_the_pictures_that_have_it() -> None:
    expected = [[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert identity_targets(POSITIVES, EXPRESSIONS).tolist() == expected


def test_an_expression_of_two_pictures_is_positive_for_both() -> None:
    shared = [frozenset({"red square"}), frozenset({"red square", "brown cat"})]
    assert identity_targets(shared, EXPRESSIONS)[:, 0].tolist() == [1, 1]


def test_identity_asks_for_the_exact_expression() -> None:
    assert identity_targets([frozenset({"red squares", "Red square", "square"})], EXPRESSIONS).sum() == 0


def test_permuting_expressions_permutes_targets() -> None:
    order = [2, 0, 3, 1]
    permuted = identity_targets(POSITIVES, [EXPRESSIONS[place] for place in order])
    assert permuted.tolist() == identity_targets(POSITIVES, EXPRESSIONS)[:, order].tolist()
