"""Expressions for the scenes of *shapes*: each is true of its things and of no other thing in the image.

Ambiguous relations are not used: is a thing still "above" another if it lies far to one side?
"""

from collections.abc import Callable, Iterator
from itertools import chain, combinations, product, zip_longest
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tseg.datasets.shapes.scenes import HUES, OUTLINES, Thing

T = TypeVar("T")

Words = tuple[str, ...]  # some of a thing's words, in their order
Expressions = Iterator[tuple[Thing, str]]  # a thing and an expression that refers to it alone

COLOUR_WEIGHT = 4  # sampling weight of expressions with a colour; others have 1
MIN_OFFSET = 12.0  # pixels that a centre must lie to one side of another
SIDES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}  # steps in x, y
PREDICATES = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}


class Phrase(NamedTuple):
    """Words, optionally a predicate and the words of its object, and all `things` that they describe."""

    words: Words
    relation: tuple[str, Words] | None
    things: tuple[Thing, ...]

    @property
    def type(self) -> str:
        """PhraseCut's type of the phrase."""
        return "relation" if self.relation else "name" if self.words[0] in OUTLINES else "attribute"

    @property
    def text(self) -> str:
        """The words, followed by "thing" if they name no category."""
        return " ".join(self.words if self.words[-1] in OUTLINES else (*self.words, "thing"))


def by_words(things: list[Thing]) -> list[Phrase]:
    """Every phrase made of the words of a thing, such as "large striped circle" or "red thing"."""
    choices = chain.from_iterable(combinations(t.words, n) for t in things for n in range(1, len(t.words) + 1))
    return [
        Phrase(words, None, tuple(thing for thing in things if set(words) <= set(thing.words)))
        for words in dict.fromkeys(choices)
    ]


def by_relation(things: list[Thing]) -> Iterator[Phrase]:
    """Every phrase with a relation to a thing that at most two words identify."""
    named = [phrase for phrase in by_words(things) if phrase.words[-1] in OUTLINES]
    unique = [phrase for phrase in named if len(phrase.words) <= 2 and len(phrase.things) == 1]
    holds = {case: _holds(*case) for case in product(things, PREDICATES, things)}
    for subject, other, predicate in product(named, unique, PREDICATES):
        (support,) = other.things
        answers = {thing: holds[thing, predicate, support] for thing in subject.things if thing is not support}
        described = tuple(thing for thing, answer in answers.items() if answer)
        if described and None not in answers.values():
            yield Phrase(subject.words, (predicate, other.words), described)


def _holds(thing: Thing, predicate: str, support: Thing) -> bool | None:
    """Whether `predicate` holds between `thing` and `support`; None if ambiguous."""
    (step_x, step_y), (x, y) = SIDES[PREDICATES[predicate]], np.subtract(thing.centre, support.centre)
    along, across = step_x * x + step_y * y, abs(step_x * y) + abs(step_y * x)
    return True if along >= max(MIN_OFFSET, across) else False if along <= 0 else None


def phrasecut_phrases(things: list[Thing], rng: np.random.Generator) -> list[tuple[tuple[Thing, ...], dict[str, Any]]]:
    """The phrases of an image: the things that each describes, and its fields in the file.

    Every category and colour in the image has a phrase, so that few images lack a common phrase that is true of them.
    Two to four more phrases alternate between several words and a relation.
    """
    single = [phrase for phrase in by_words(things) if len(phrase.words) == 1 and phrase.words[0] in {*OUTLINES, *HUES}]
    joined = [phrase for phrase in by_words(things) if len(phrase.words) in (2, 3)]
    related = [phrase for phrase in by_relation(things) if len(phrase.words) <= 2]
    turns = (_shuffled(phrases, rng, [_weight(phrase.text) for phrase in phrases]) for phrases in (joined, related))
    more = list(filter(None, chain.from_iterable(zip_longest(*turns))))[: rng.integers(2, 5)]
    return [(phrase.things, _phrasecut_fields(phrase, rng)) for phrase in (*single, *more)]


def _weight(text: str) -> float:
    """The sampling weight of an expression, as people prefer to name colours."""
    return COLOUR_WEIGHT if set(text.split()) & set(HUES) else 1


def _shuffled(items: list[T], rng: np.random.Generator, weights: list[float]) -> list[T]:
    """The items in random order; larger weights tend to come first."""
    keys = rng.exponential(size=len(items)) / weights
    return [items[index] for index in np.argsort(keys)]


def _phrasecut_fields(phrase: Phrase, rng: np.random.Generator) -> dict[str, Any]:
    *attributes, name = phrase.text.split()
    if len(phrase.things) > 1 and rng.random() < 0.5:
        name += "es" if name.endswith("s") else "s"
    relations = [[phrase.relation[0], " ".join(phrase.relation[1])]] if phrase.relation else []
    structure = {
        "name": name,
        "attributes": attributes,
        "relation_ids": [],  # ids in Visual Genome's scene graphs, which shapes lack
        "relation_descriptions": relations,
        "type": phrase.type,
    }
    return {"phrase": " ".join(chain([*attributes, name], *relations)), "phrase_structure": structure}


def refcoco_expressions(things: list[Thing]) -> Expressions:
    """Short expressions with a location, such as "left red circle" or "striped star at the top"."""
    for phrase, side in product(by_words(things), SIDES):
        height, width = phrase.things[0].visible.shape
        step = SIDES[side]
        *rivals, farthest = sorted(phrase.things, key=lambda thing: np.dot(step, thing.centre))
        # The image centre is a rival too: a thing that is the only one of its kind must still be on that side.
        others = [(width / 2, height / 2), *(thing.centre for thing in rivals)]
        if len(phrase.words) <= 3 and np.dot(step, farthest.centre) >= max(np.dot(others, step)) + MIN_OFFSET:
            yield farthest, f"{side} {phrase.text}"
            yield farthest, f"{phrase.text} {'on' if side in ('left', 'right') else 'at'} the {side}"


def refcoco_plus_expressions(things: list[Thing]) -> Expressions:
    """Expressions of appearance only, such as "large blue star"."""
    return ((phrase.things[0], phrase.text) for phrase in by_words(things) if len(phrase.things) == 1)


def refcocog_expressions(things: list[Thing]) -> Expressions:
    """Long expressions with a relation, such as "a striped circle that is to the left of the blue star"."""
    for phrase in by_relation(things):
        if phrase.relation and len(phrase.things) == 1 and len(phrase.words) >= 2:
            predicate, other = phrase.relation
            where = f"{'to the ' if predicate.endswith('of') else ''}{predicate} the {' '.join(other)}"
            yield phrase.things[0], f"the {phrase.text} {where}"
            yield phrase.things[0], f"{'an' if phrase.text[0] in 'aeiou' else 'a'} {phrase.text} that is {where}"


EXPRESSION_STYLES: dict[str, Callable[[list[Thing]], Expressions]] = {
    "refcoco": refcoco_expressions,
    "refcoco+": refcoco_plus_expressions,
    "refcocog": refcocog_expressions,
}


def references(dataset: str, things: list[Thing], rng: np.random.Generator) -> dict[Thing, list[str]]:
    """Two to four things with one to three expressions each, in the style of `dataset`."""
    expressions: dict[Thing, list[str]] = {}
    for thing, expression in EXPRESSION_STYLES[dataset](things):
        expressions.setdefault(thing, []).append(expression)
    chosen = rng.permutation(np.array(list(expressions), dtype=object))[: rng.integers(2, 5)]
    return {
        thing: _shuffled(expressions[thing], rng, list(map(_weight, expressions[thing])))[: rng.integers(1, 4)]
        for thing in chosen
    }
