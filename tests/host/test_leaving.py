"""Ranks whose last collective is followed by the end of the process end well."""

import subprocess
import sys

import pytest

from variational_reasoning.host.leaving import wait_for_gloo

RANK = """
import sys

import torch
import torch.distributed as dist

from variational_reasoning.host.leaving import wait_for_gloo_at_exit

store, rank, waits = sys.argv[1:]
if waits == "True":
    wait_for_gloo_at_exit()
dist.init_process_group("gloo", rank=int(rank), world_size=2, init_method=f"file://{store}")
kept = dist.group.WORLD  # as a module's default argument keeps it: the threads outlive the group
sys.setswitchinterval(100)  # no thread asks for the lock: what happens once in a dozen runs is usual
for _ in range(200):
    dist.all_gather([torch.zeros(4)[:2], torch.zeros(4)[:2]], torch.ones(2))
dist.destroy_process_group()
"""


def _exit_codes(folder, number: int, waits: bool) -> list[int]:
    command = [sys.executable, "-c", RANK, str(folder / str(number))]
    ranks = [
        subprocess.Popen([*command, rank, str(waits)], stderr=subprocess.DEVNULL)
        for rank in ("0", "1")
    ]
    return [rank.wait(timeout=120) for rank in ranks]


@pytest.mark.slow
def test_a_rank_ends_well_right_after_a_collective(tmp_path):
    """Without the wait, 11 of 20 pairs of ranks ended in SIGABRT here (torch 2.11)."""
    codes = [_exit_codes(tmp_path, number, waits=True) for number in range(5)]
    assert codes == [[0, 0]] * 5


def test_nothing_is_waited_for_without_gloo(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("slept"))
    wait_for_gloo()
