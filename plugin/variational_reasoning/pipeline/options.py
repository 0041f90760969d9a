"""The command line of a command without a pipeline.yaml: `key=value` words, read into a dataclass.

    @dataclass(frozen=True)
    class Options:
        input: str = ""                                   needed, because its default is empty text
        dtype: Literal["float32", "float64"] = "float32"  one of these
        workers: int = above(0, default=2)                a whole number above 0
        python: str | None = None                         any text
        verbose: bool = False                             true or false

        def faults(self) -> list[str]: ...                what else is wrong with the values

    options = read_options(USAGE, Options)

Every fault of the command line is raised at once, together with the usage. The last word counts
for a key that is given twice.
"""

import difflib
import math
import typing
from collections.abc import Sequence
from dataclasses import Field, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from variational_reasoning.pipeline.commands import read_words


class Options(Protocol):
    """A dataclass whose fields are the keys of a command."""

    def faults(self) -> list[str]:
        """What is wrong with the values, apart from their types.

        A value that cannot be read has its default here.
        """


T = TypeVar("T", bound=Options)


def above(bound: float, default: float) -> Any:
    """A field for a number that must be greater than `bound`."""
    return field(default=default, metadata={"above": bound})


def read_options(usage: str, cls: type[T], argv: Sequence[str] | None = None) -> T:
    """Read `COMMAND key=value ...`.

    Args:
        usage: printed for --help, and after the faults.
        cls: a dataclass with the method `faults`; a field whose default is empty text is needed.
        argv: words of the command line; sys.argv's by default.

    Raises: ValueError that lists every fault; SystemExit after --help.
    """
    places, pairs = read_words(usage, argv)
    known = {spec.name: spec for spec in fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    faults: list[str] = []
    given: dict[str, Any] = {}
    faults += [f"{place!r} is not of the form key=value" for place in places]
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in known:
            faults.append(_unknown_key(name, known))
        else:
            given[name] = _convert(text, hints[name], known[name], faults)
    for name, spec in known.items():
        if spec.default == "" and not given.get(name):
            faults.append(f"{name}=... is missing")
    options = cls(**given)
    faults += options.faults()
    if faults:
        raise ValueError("\n".join([*faults, usage]))
    return options


def output_faults(output: str) -> list[str]:
    """What is wrong with the path of a file that a command writes; nothing for an empty one."""
    if not output:
        return []
    path = Path(output)
    if path.is_dir():
        return [f"output={output!r} is a folder; it must be a file in a folder that exists"]
    if not path.absolute().parent.is_dir():
        return [f"output={output!r} is in no folder that exists; make {path.parent} first"]
    return []


def _unknown_key(name: str, known: typing.Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"known are {', '.join(known)}"
    if near:
        hint = f"did you mean {near[0]!r}?"
    return f"unknown key {name!r}; {hint}"


def _convert(text: str, hint: Any, spec: Field, faults: list[str]) -> Any:
    """A value of a field's type, or its default and a fault where the text is not one."""
    if hint in (str, str | None):
        return text or spec.default
    if hint is bool:
        chosen = _choose(text, ("true", "false"), spec, faults)
        return chosen in ("true", True)  # the default is a bool
    if typing.get_origin(hint) is Literal:
        return _choose(text, typing.get_args(hint), spec, faults)
    bound = spec.metadata["above"]
    try:
        value = hint(text)
        is_allowed = bound < value < math.inf
    except ValueError:
        is_allowed = False
    if is_allowed:
        return value
    kind = "whole number" if hint is int else "number"
    faults.append(f"{spec.name}={text!r} is not a {kind} above {bound:g}")
    return spec.default


def _choose(text: str, allowed: Sequence[str], spec: Field, faults: list[str]) -> Any:
    """One of the allowed texts, or the default and a fault."""
    if text in allowed:
        return text
    faults.append(f"{spec.name}={text!r} is not one of {', '.join(allowed)}")
    return spec.default
