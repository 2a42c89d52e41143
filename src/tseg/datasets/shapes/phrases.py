"""What is said of the scenes of *shapes*: each expression is true of its things and of no other in the image.

Where people could differ (is it still "above" when it lies off to one side?) nothing is said.
"""

from collections.abc import Callable, Iterator
from itertools import chain, combinations, product, zip_longest
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tseg.datasets.shapes.scenes import HUES, OUTLINES, Thing

T = TypeVar("T")

Words = tuple[str, ...]  # some of a thing's words, in their order
Sayings = Iterator[tuple[Thing, str]]  # a thing and an expression that refers to it alone

COLOURFUL = 4  # times likelier than without a colour
CLEARLY = 12.0  # pixels between two centres before one is said to be on a side of the other
SIDES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}  # steps in x, y
PREDICATES = {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}


class Phrase(NamedTuple):
    """Words, perhaps a predicate with the words of its object, and all the `things` that they describe."""

    words: Words
    relation: tuple[str, Words] | None
    things: tuple[Thing, ...]

    @property
    def type(self) -> str:
        """PhraseCut's word for what the description consists of."""
        return "relation" if self.relation else "name" if self.words[0] in OUTLINES else "attribute"

    @property
    def text(self) -> str:
        """The words, with "thing" for a category."""
        return " ".join(self.words if self.words[-1] in OUTLINES else (*self.words, "thing"))


def by_words(things: list[Thing]) -> list[Phrase]:
    """Every description by some of the words of some thing, such as "large striped circle" or "red thing"."""
    choices = chain.from_iterable(combinations(t.words, n) for t in things for n in range(1, len(t.words) + 1))
    return [
        Phrase(words, None, tuple(thing for thing in things if set(words) <= set(thing.words)))
        for words in dict.fromkeys(choices)
    ]


def by_relation(things: list[Thing]) -> Iterator[Phrase]:
    """Every description by words and by the place beside one thing that at most two words make unique."""
    named = [way for way in by_words(things) if way.words[-1] in OUTLINES]
    unique = [way for way in named if len(way.words) <= 2 and len(way.things) == 1]
    lies = {case: _lies(*case) for case in product(things, PREDICATES, things)}
    for subject, other, predicate in product(named, unique, PREDICATES):
        (support,) = other.things
        answers = {thing: lies[thing, predicate, support] for thing in subject.things if thing is not support}
        described = tuple(thing for thing, answer in answers.items() if answer)
        if described and None not in answers.values():
            yield Phrase(subject.words, (predicate, other.words), described)


def _lies(thing: Thing, predicate: str, support: Thing) -> bool | None:
    """Whether `thing` lies there, seen from `support`; None where people could differ."""
    (step_x, step_y), (x, y) = SIDES[PREDICATES[predicate]], np.subtract(thing.centre, support.centre)
    along, across = step_x * x + step_y * y, abs(step_x * y) + abs(step_y * x)
    return True if along >= max(CLEARLY, across) else False if along <= 0 else None


def phrasecut_phrases(things: list[Thing], rng: np.random.Generator) -> list[tuple[tuple[Thing, ...], dict[str, Any]]]:
    """The things that each phrase describes, and its fields in the file.

    Every category and every colour of the image has its phrase, so that the commonest phrases are seldom true of a
    image that does not list them. Up to four more phrases join words, or relate things, by turns.
    """
    single = [way for way in by_words(things) if len(way.words) == 1 and way.words[0] in {*OUTLINES, *HUES}]
    joined = [way for way in by_words(things) if len(way.words) in (2, 3)]
    related = [way for way in by_relation(things) if len(way.words) <= 2]
    turns = (_shuffled(ways, rng, [_weight(way.text) for way in ways]) for ways in (joined, related))
    more = list(filter(None, chain.from_iterable(zip_longest(*turns))))[: rng.integers(2, 5)]
    return [(way.things, _phrasecut_fields(way, rng)) for way in (*single, *more)]


def _weight(text: str) -> float:
    """How readily people say so: colours first."""
    return COLOURFUL if set(text.split()) & set(HUES) else 1


def _shuffled(items: list[T], rng: np.random.Generator, weights: list[float]) -> list[T]:
    """The items in random order, those of more weight likelier to come early."""
    keys = rng.exponential(size=len(items)) / weights
    return [items[place] for place in np.argsort(keys)]


def _phrasecut_fields(way: Phrase, rng: np.random.Generator) -> dict[str, Any]:
    *attributes, name = way.text.split()
    if len(way.things) > 1 and rng.random() < 0.5:
        name += "es" if name.endswith("s") else "s"
    relations = [[way.relation[0], " ".join(way.relation[1])]] if way.relation else []
    structure = {
        "name": name,
        "attributes": attributes,
        "relation_ids": [],  # they would refer to Visual Genome's scene graphs
        "relation_descriptions": relations,
        "type": way.type,
    }
    return {"phrase": " ".join(chain([*attributes, name], *relations)), "phrase_structure": structure}


def refcoco_sayings(things: list[Thing]) -> Sayings:
    """Short expressions with a place, such as "left red circle" or "striped star at the top"."""
    for way, side in product(by_words(things), SIDES):
        height, width = way.things[0].visible.shape
        step = SIDES[side]
        *rivals, farthest = sorted(way.things, key=lambda thing: np.dot(step, thing.centre))
        # The middle of the image is a rival too: what is alone still has to lie on its side.
        others = [(width / 2, height / 2), *(thing.centre for thing in rivals)]
        if len(way.words) <= 3 and np.dot(step, farthest.centre) >= max(np.dot(others, step)) + CLEARLY:
            yield farthest, f"{side} {way.text}"
            yield farthest, f"{way.text} {'on' if side in ('left', 'right') else 'at'} the {side}"


def refcoco_plus_sayings(things: list[Thing]) -> Sayings:
    """Expressions of looks alone, such as "large blue star"."""
    return ((way.things[0], way.text) for way in by_words(things) if len(way.things) == 1)


def refcocog_sayings(things: list[Thing]) -> Sayings:
    """Long expressions with a relation, such as "a striped circle that is to the left of the blue star"."""
    for way in by_relation(things):
        if way.relation and len(way.things) == 1 and len(way.words) >= 2:
            predicate, other = way.relation
            where = f"{'to the ' if predicate.endswith('of') else ''}{predicate} the {' '.join(other)}"
            yield way.things[0], f"the {way.text} {where}"
            yield way.things[0], f"{'an' if way.text[0] in 'aeiou' else 'a'} {way.text} that is {where}"


SAYINGS: dict[str, Callable[[list[Thing]], Sayings]] = {
    "refcoco": refcoco_sayings,
    "refcoco+": refcoco_plus_sayings,
    "refcocog": refcocog_sayings,
}


def references(dataset: str, things: list[Thing], rng: np.random.Generator) -> dict[Thing, list[str]]:
    """Two to four things that can be told apart in the manner of `dataset`, one to three expressions each."""
    sayings: dict[Thing, list[str]] = {}
    for thing, expression in SAYINGS[dataset](things):
        sayings.setdefault(thing, []).append(expression)
    chosen = rng.permutation(np.array(list(sayings), dtype=object))[: rng.integers(2, 5)]
    return {
        thing: _shuffled(sayings[thing], rng, [_weight(saying) for saying in sayings[thing]])[: rng.integers(1, 4)]
        for thing in chosen
    }
