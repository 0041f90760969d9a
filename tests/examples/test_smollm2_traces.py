"""The check of traces next to the profile smollm2_135m."""

import sys

from tests.conftest import ROOT

from variational_reasoning.verify.traces import open_trace_check

CHECK = ROOT / "examples/variational_reasoning/smollm2_135m/check_trace.py"
TRACES = {
    "9 + 7 = 16\n16 - 5 = 11": "",
    "3 - 5 = -2 \n-2 + 6 = 4\n": "",
    "9 + 7 - 5 = 11": "",
    # two wrong equations that end at the right number
    "5 + 9 = 16\n16 - 3 = 11": "5 + 9 is 14, not 16",
    "7 - 3 = 4\n4 - 1 = 2": "4 - 1 is 3, not 2",
    # the last sum is 15, and so is what the next equation makes of it
    "9 + 2 + 4 = 15\n15 - 2 = 15": "15 - 2 is 13, not 15",
    "4 + 6 = 10\nSo it is 10": "'So it is 10' is not an equation",
    "2 + 2 = 4 = 4": "'2 + 2 = 4 = 4' is not an equation",
    "\n": "no step",
}


def test_every_equation_holds():
    check = open_trace_check(f"{sys.executable} {CHECK}", seconds=60)
    assert check([{"trace": trace} for trace in TRACES]) == list(TRACES.values())
