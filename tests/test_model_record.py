"""The record next to a model: secrets are masked wherever they are."""

import pytest

from variational_reasoning.model_record import masked, masked_word, read_record, write_record


@pytest.mark.parametrize(
    "key",
    [
        "hf_hub_token",
        "HUB_TOKEN",
        "swanlab_api_key",
        "apikey",
        "swanlab_lark_secret",
        "swanlab_lark_webhook_url",
        "aws_secret_access_key",
        "password",
    ],
)
def test_secret_like_keys_are_masked_at_any_depth(key):
    masks = f"<{key.upper()}>"
    assert masked({key: "abc"}) == {key: masks}
    assert masked({"a": [{"b": {key: "abc"}}]}) == {"a": [{"b": {key: masks}}]}
    assert masked_word(f"{key}=abc") == f"{key}={masks}"
    assert masked_word(f"--{key}=abc") == f"--{key}={masks}"


def test_what_is_not_a_secret_stays():
    values = {"max_token": 3, "hub_token": None, "tokens": "a,b", "tokenizer": "x", "key": "k"}
    assert masked(values) == values
    assert masked(None) is None
    assert masked_word("output_dir=a=b") == "output_dir=a=b"
    assert masked_word("train.yaml") == "train.yaml"


def test_a_record_is_written_without_secrets_also_when_it_is_copied(tmp_path):
    write_record(tmp_path, {"yaml": {"hub_token": "hf_abc"}, "rows": {"count": 1}})
    assert read_record(tmp_path) == {"yaml": {"hub_token": "<HUB_TOKEN>"}, "rows": {"count": 1}}
