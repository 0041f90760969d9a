"""The names that function records take for granted."""

import operator
import random

from variational_reasoning.verify.sandbox.inside import names


def test_names_of_a_program_are_found_in_its_functions_too():
    source = "import math\nclass A:\n    def f(self):\n        return [g(x.y) for x in math.inf]\n"
    assert {"math", "A", "g", "y", "inf"} <= names.used_in(compile(source, "p", "exec"))
    assert names.used_in(SyntaxError("not a program")) == set()


def test_a_later_star_replaces_an_earlier_one_and_builtins_stay(monkeypatch):
    monkeypatch.setattr(names, "_names", {})
    names.load()
    found = names.provided(set())
    assert found["sub"] is operator.sub and found["random"] is random
    assert not {"pow", "abs", "open", "print"} & found.keys()
    assert "timedelta" not in found and "mean" not in found
    assert {"timedelta", "date"} <= names.provided({"timedelta"}).keys()
    assert {"mean", "median"} <= names.provided({"mean"}).keys()
    assert "cmath" in names.provided({"cmath"})
