"""What the activation hook costs an interpreter that never imports LLaMA-Factory: `python
benchmarks/startup.py [runs=50]`.

Reads CPython's own `-X importtime` of `import variational_reasoning.autoload`, as the .pth file
runs it, package included.
"""

import statistics
import subprocess
import sys

PACKAGES = (
    "variational_reasoning",
    "variational_reasoning.autoload",
)


def main() -> None:
    """Print median and maximum over fresh interpreters, and the floor: an empty interpreter."""
    runs = int(dict(word.partition("=")[::2] for word in sys.argv[1:]).get("runs", 50))
    hook, whole = zip(*(_milliseconds() for _ in range(runs)), strict=True)
    print(
        f"hook: median {statistics.median(hook):.2f} ms, maximum {max(hook):.2f} ms over {runs} "
        f"interpreters (limit: 5 ms)"
    )
    print(f"all imports of an empty interpreter: median {statistics.median(whole):.2f} ms")


def _milliseconds() -> tuple[float, float]:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "pass"],
        capture_output=True,
        text=True,
        check=True,
    )
    own = {}
    for line in result.stderr.splitlines():
        if line.startswith("import time:") and "self [us]" not in line:
            microseconds, _, name = line.removeprefix("import time:").split("|")
            own[name.strip()] = int(microseconds)
    if PACKAGES[-1] not in own:
        raise SystemExit("the hook is not installed in this environment: pip install -e .")
    return sum(own[name] for name in PACKAGES) / 1000, sum(own.values()) / 1000


if __name__ == "__main__":
    main()
