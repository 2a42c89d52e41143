"""The libraries and processors that made files: the bytes depend on them."""

from collections.abc import Iterable, Mapping

from tseg.lineage import Note, machine_name
from tseg.settings.schema import StrictModel

_ABSENT = "not installed"


class Conditions(StrictModel):
    """What made some files, as their notes say."""

    versions: dict[str, list[str]]
    """Library to the versions that made them."""
    machines: list[str]
    """Processors, with their GPU, that made them."""

    def differences(self, versions: Mapping[str, str], machine: str) -> list[str]:
        """One line for each library, and for the processor, that is another one."""
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
