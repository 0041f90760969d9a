"""The worker of an evaluation that asks the model."""

from types import SimpleNamespace

from variational_reasoning.method.prompts import Renderer, make_renderer
from variational_reasoning.pipeline.config import load_config
from variational_reasoning.pipeline.engines import load_tokenizer
from variational_reasoning.pipeline.evaluate import Benchmark, Model, ResponseSampler


def test_the_tokenizer_is_tried_with_the_prompts_that_the_model_gets(
    make_run, tiny_model_dir, tmp_path, monkeypatch
):
    """A model's own record may name another chat format than the configuration."""
    tried = []
    monkeypatch.setattr(
        Renderer, "check_codec", lambda self, encode, decode, source: tried.append(self)
    )
    own = make_renderer("llama3")
    model = Model("m", tiny_model_dir, own, load_config(make_run()))
    tokenizer = load_tokenizer(str(tiny_model_dir))
    engine = SimpleNamespace(tokenizer=tokenizer, statistics=lambda: {"sampled_tokens": 0})
    monkeypatch.setattr(Model, "engine", engine)
    ResponseSampler(Benchmark("", tmp_path, [], 1), model)
    assert tried == [own]
