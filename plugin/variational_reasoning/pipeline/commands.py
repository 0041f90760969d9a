"""How a command of scripts/ and evals/ reads its words, and how it refuses."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from variational_reasoning.pipeline.config import Config, load_config

TRACEBACK_SWITCH = "VARIATIONAL_REASONING_TRACEBACK"


def read_words(usage: str, argv: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """The words of a command line: (those without `=`, those of the form key=value), each in their
    order.

        report.py runs/a runs/b out=page.html    (["runs/a", "runs/b"], ["out=page.html"])

    Args:
        usage: printed for --help.
        argv: sys.argv's words by default.

    Raises: SystemExit after --help.
    """
    words = sys.argv[1:] if argv is None else argv
    if "-h" in words or "--help" in words:
        print(usage)
        raise SystemExit(0)
    places = []
    pairs = []
    for word in words:
        if "=" in word:
            pairs.append(word)
        else:
            places.append(word)
    return places, pairs


def read_command(
    usage: str,
    own: Sequence[str] = (),
    argv: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> tuple[Config, dict[str, str]]:
    """Read `COMMAND CONFIG.yaml key=value ...`.

    Args:
        usage: printed for --help and when no configuration is given.
        own: keys that are the command's own (such as model) and not the configuration's; all are
            required.
        optional: the same, not required.

    Returns: the configuration, and the command's own values that are given.

    Raises: ValueError for arguments that do not fit; SystemExit after --help.
    """
    places, pairs = read_words(usage, argv)
    if not places:
        raise ValueError(f"the first argument must be a pipeline.yaml\n{usage}")
    path, *more = places
    mine: dict[str, str] = {}
    overrides = list(more)  # not of the form key=value, which load_config says
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in (*own, *optional):
            mine[name] = value
        else:
            overrides.append(pair)
    missing = [f"{name}=..." for name in own if not mine.get(name)]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}\n{usage}")
    return load_config(path, overrides), mine


def read_folders(usage: str, options: Sequence[str]) -> tuple[list[Path], dict[str, str]]:
    """Read `COMMAND FOLDER [FOLDER ...] key=value ...`: the folders, and the options that are
    given.

    Raises: ValueError for an unknown option and for no folder; SystemExit after --help.
    """
    places, pairs = read_words(usage)
    folders = [Path(place) for place in places]
    given = dict(pair.split("=", 1) for pair in pairs)
    if unknown := sorted(given.keys() - set(options)):
        raise ValueError(f"unknown options {', '.join(unknown)}\n{usage}")
    if not folders:
        raise ValueError(f"no folder is named\n{usage}")
    return folders, given


def run_command(main: Callable[[], None]) -> None:
    """Run a command's main; a refusal is one line per fault on stderr and exit code 2, without a
    traceback.

    VARIATIONAL_REASONING_TRACEBACK=1 shows the traceback, for whoever suspects a fault of the
    program.
    """
    try:
        main()
    # OSError: a missing file, a full disk.
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if os.environ.get(TRACEBACK_SWITCH) == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
