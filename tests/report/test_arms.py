"""The table of arms, over the seeds of a run."""

import json

import pytest

from variational_reasoning.report.arms import compare_arms


def write(folder, name, accuracy, error, donor=None):
    place = folder / "evals" / name
    place.mkdir(parents=True)
    result = {"avg": accuracy, "standard_error": error, "mean_tokens": 9.0}
    (place / "result.json").write_text(json.dumps(result))
    if donor is not None:
        (place / "controls.json").write_text(json.dumps({"kinds": {"donor": {"accuracy": donor}}}))


def test_one_seed_has_errors_over_questions(tmp_path):
    write(tmp_path, "good", 0.998, 0.002, donor=0.168)
    write(tmp_path, "bad", 0.222, 0.019)
    assert compare_arms([tmp_path]).splitlines()[2:] == [
        "| bad | 22.2 ± 1.9 | 9.0 |  |  |  |  |  |  |  |",
        "| good | 99.8 ± 0.2 | 9.0 | 16.8 |  |  |  |  |  |  |",
    ]


def test_several_seeds_have_errors_over_seeds(tmp_path):
    for seed, accuracy in enumerate((0.9, 0.8, 1.0)):
        write(tmp_path / str(seed), "arm", accuracy, 0.5, donor=0.1 * (seed + 1))
    [line] = compare_arms([tmp_path / str(seed) for seed in range(3)]).splitlines()[2:]
    # standard deviation 10 over three seeds: 10 / sqrt(3) = 5.8
    assert line == "| arm | 90.0 ± 5.8 | 9.0 | 20.0 |  |  |  |  |  |  |"


def test_the_upper_bound_and_what_follows_the_trace(tmp_path):
    write(tmp_path, "arm", 0.9, 0.1, donor=0.2)
    kinds = {"chain": {"accuracy": 0.95}, "continued": {"accuracy": 0.1, "follows": 0.75}}
    (tmp_path / "evals/arm/controls.json").write_text(json.dumps({"kinds": kinds}))
    [head, _, line] = compare_arms([tmp_path]).splitlines()
    assert head.endswith("| none trace | chain trace | follows |")
    assert line.endswith("|  | 95.0 | 75.0 |")


def test_runs_without_or_with_other_evaluations_are_refused(tmp_path):
    with pytest.raises(ValueError, match="by the same evaluations; there are .*: none"):
        compare_arms([tmp_path])
    write(tmp_path / "a", "x", 0.5, 0.1)
    write(tmp_path / "b", "y", 0.5, 0.1)
    with pytest.raises(ValueError, match="a: x; .*b: y"):
        compare_arms([tmp_path / "a", tmp_path / "b"])


def test_a_second_evaluation_is_a_column_and_what_the_channel_carries_a_line(tmp_path):
    for seed, accuracy in enumerate((0.8, 1.0)):
        folder = tmp_path / str(seed)
        write(folder, "arm", 0.9, 0.1, donor=0.2)
        write(folder, "arm_sampled", accuracy, 0.1)
        write(folder, "other", 0.5, 0.1)
        place = folder / "evals" / "phase_a_1"
        place.mkdir(parents=True)
        (place / "oracle.json").write_text(json.dumps({"accuracy": 0.5, "standard_error": 0.02}))
    table = compare_arms([tmp_path / "0", tmp_path / "1"]).splitlines()
    assert table[0].startswith("| arm | accuracy | sampled | tokens | donor trace |")
    assert table[2:] == [
        "| other | 50.0 ± 0.0 |  | 9.0 |  |  |  |  |  |  |  |",
        # 80 and 100: standard deviation 14.1 over two seeds, 14.1 / sqrt(2) = 10
        "| arm | 90.0 ± 0.0 | 90.0 ± 10.0 | 9.0 | 20.0 |  |  |  |  |  |  |",
        "",
        "phase_a_1: 50.0 ± 0.0 with the chain in view of the symbols alone",
    ]


def test_what_only_a_later_run_has_measured_is_shown(tmp_path):
    for seed in ("0", "1"):
        write(tmp_path / seed, "arm", 0.9, 0.1)
    write(tmp_path / "1", "arm_sampled", 0.8, 0.02)
    place = tmp_path / "1/evals/phase_a_1"
    place.mkdir()
    (place / "oracle.json").write_text(json.dumps({"accuracy": 0.5, "standard_error": 0.02}))
    table = compare_arms([tmp_path / "0", tmp_path / "1"]).splitlines()
    assert table[2:] == [
        "| arm | 90.0 ± 0.0 | 80.0 ± 2.0 | 9.0 |  |  |  |  |  |  |  |",
        "",
        "phase_a_1: 50.0 ± 2.0 with the chain in view of the symbols alone",
    ]
