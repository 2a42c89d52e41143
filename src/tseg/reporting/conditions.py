"""The libraries and processors that made files: the bytes depend on them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tseg.lineage import Note, machine_name
from tseg.settings.schema import StrictModel

_ABSENT = "not installed"


class Conditions(StrictModel):
    """What made some files, as their notes say; empty if none has a note."""

    versions: dict[str, list[str]]
    """Library to the versions that made them."""
    machines: list[str]
    """Processors, with their GPU, that made them."""

    def others(self, versions: Mapping[str, str], machine: str) -> list[str]:
        """One line for each library, and for the processor, that is another one."""
        if not self.machines:
            return []
        lines: list[str] = []
        for name in sorted({*self.versions, *versions}):
            now, then = versions.get(name, _ABSENT), self.versions.get(name, [_ABSENT])
            lines += [f"{name} is {now}, was {', '.join(then)}"] if now not in then else []
        if machine not in self.machines:
            lines.append(f"the processor is {machine}, was {', '.join(self.machines)}")
        return lines


def conditions_of(notes: Iterable[Note]) -> Conditions:
    """The conditions under which the files with these notes were made."""
    made = list(notes)
    names = sorted({name for note in made for name in note.versions})
    return Conditions(
        versions={name: sorted({note.versions[name] for note in made if name in note.versions}) for name in names},
        machines=sorted({machine_name(note.machine) for note in made}),
    )


def check_unchanged(path: Path, note: Note, sha256: str) -> None:
    """Raise ValueError unless the hash of a file is the one that its note recorded."""
    if note.sha256 != sha256:
        raise ValueError(f"{path} was changed after it was made; remove it, and the same command makes it again")
