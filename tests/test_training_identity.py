"""By what two trainings differ, from two records in hand."""

import pytest

from variational_reasoning.training_identity import differences, file_identity, files_of_keys


def of_yamls(then, now, **defaults):
    return differences({"yaml": then}, {"yaml": now}, defaults)


def test_one_value_in_two_spellings():
    assert not of_yamls({"lr": 1e-5, "on": True}, {"lr": "0.00001", "on": "true"})
    assert not of_yamls({"dataset": ["a", "b"]}, {"dataset": "a, b"})
    assert not of_yamls({}, {"weight_decay": 0.0}, weight_decay=0.0)
    assert of_yamls({}, {"weight_decay": 0.1}) == ["weight_decay: was None, is 0.1"]


def test_evaluation_counts_where_it_chooses_the_model():
    then, now = {"eval_steps": 1, "save_steps": 1}, {"eval_steps": 2, "save_steps": 2}
    assert not of_yamls(then, now)
    best = {"load_best_model_at_end": True}
    assert of_yamls(then | best, now | best) == [
        "eval_steps: was 1, is 2",
        "save_steps: was 1, is 2",
    ]
    assert of_yamls(then, now | {"early_stopping_steps": 3})


def test_workers_count_where_the_order_depends_on_them():
    then, now = {"preprocessing_num_workers": 1}, {"preprocessing_num_workers": 2}
    assert not of_yamls(then, now)
    assert of_yamls(then | {"packing": True}, now | {"packing": True})
    then, now = {"dataloader_num_workers": 1}, {"dataloader_num_workers": 2}
    assert not of_yamls(then, now)
    assert of_yamls(then | {"streaming": True}, now | {"streaming": True})


def test_secrets_never_count_and_are_never_shown():
    assert not of_yamls({"hub_token": "<HUB_TOKEN>"}, {"hub_token": "hf_abc"})


@pytest.mark.parametrize("is_folder", [False, True])
def test_contents_of_files_and_folders(tmp_path, is_folder):
    path = tmp_path / "data"
    if is_folder:
        path.mkdir()
    file = path / "a.jsonl" if is_folder else path
    file.write_text("1")
    then = {"sources": {"rows": file_identity(path)}}
    assert not differences(then, {"sources": {"rows": file_identity(path)}})
    file.write_text("2")
    changed = differences(then, {"sources": {"rows": file_identity(path)}})
    assert changed == [f"data set rows: the contents of {path} have changed"]
    gone = differences(then, {"sources": {"rows": file_identity(tmp_path / "none")}})
    assert gone == [f"data set rows: {tmp_path}/none is gone"]


def test_files_that_keys_name(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text("{}")
    config = {"deepspeed": str(path), "output_dir": str(path), "stage": "sft", "text": "x" * 5000}
    then = files_of_keys(config)
    assert set(then) == {"deepspeed"}
    path.write_text("[]")
    assert differences({"files": then}, {"files": files_of_keys(config)}) == [
        f"deepspeed: the contents of {path} have changed"
    ]
