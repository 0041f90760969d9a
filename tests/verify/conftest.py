"""Sandboxes of every tier that this machine has, for programs that attack them."""

import pytest

from variational_reasoning.verify.sandbox.probe import Probe, probe
from variational_reasoning.verify.sandbox.sandbox import Limits, Sandbox

LIMITS = Limits(cpu_seconds=1, wall_seconds=2.5, memory_mib=512, output_mib=4)

DOUBLE = {"inputs": ["3\n", "4\n"], "outputs": ["6\n", "8\n"]}
"""Tests of a script that doubles a number."""


def program(source: str) -> str:
    """A solution that consists of a program."""
    return f"```python\n{source}\n```"


_found: dict[int, Probe] = {}


def need_tier(tier: int) -> None:
    """Skip the test, with the reason, where this machine does not have the tier."""
    if tier not in _found:
        _found[tier] = probe(highest=tier)
    if _found[tier].tier != tier:
        pytest.skip(f"tier T{tier} is not available on this machine: {_found[tier].missing}")


@pytest.fixture(scope="module", params=[3, 2], ids=["T3", "T2"])
def sandbox(request):
    """One sandbox of a tier that must stop everything."""
    need_tier(request.param)
    with Sandbox(request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def weak_sandbox():
    """Tier 1: only limits and the clean-up afterwards."""
    need_tier(1)
    with Sandbox(1) as opened:
        yield opened
