"""The versions of an installed environment as a constraints file (make constraints), for the same
versions next year.

Only names and versions are written: no path, no registry, and no local version such as +cpu, since
`torch==2.13.0` also matches a `2.13.0+cpu` where that is what is found.
"""

import subprocess
from pathlib import Path

from variational_reasoning.files import write_atomically
from variational_reasoning.pipeline.commands import read_words, run_command

USAGE = """usage: python scripts/write_constraints.py PYTHON FILE
PYTHON is the interpreter of the environment, such as .venv/bin/python; FILE is constraints/train.txt or another."""
LEFT_OUT = ("pip", "setuptools", "wheel", "uv", "variational-reasoning", "skythought")
"""What installs, what is installed from this folder, and what the Makefile pins itself."""


def constraint_lines(listing: str) -> list[str]:
    """`name==version` lines from those of `pip list --format=freeze`, sorted, without local
    versions.

    "Torch==2.13.0+cpu" -> "torch==2.13.0"
    """
    lines = []
    for line in listing.splitlines():
        name, _, version = line.strip().partition("==")
        name = name.lower().replace("_", "-")
        if version and name not in LEFT_OUT:
            lines.append(f"{name}=={version.partition('+')[0]}")
    return sorted(lines)


def main() -> None:
    places, pairs = read_words(USAGE)
    if len(places) != 2 or pairs:
        given = " ".join([*places, *pairs]) or "none"
        raise ValueError(f"the arguments do not fit: {given}\n{USAGE}")
    python, path = places
    command = [python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    version = subprocess.run(
        [python, "-c", "import platform; print(platform.python_version(), platform.system())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    header = f"# Tested versions, written by `make constraints` with CPython {version}.\n"
    lines = constraint_lines(done.stdout)
    text = header + "\n".join(lines) + "\n"
    write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))
    print(f"wrote {len(lines)} versions to {path}")


if __name__ == "__main__":
    run_command(main)
