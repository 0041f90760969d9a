"""C of weighted Dr. SFT for a training YAML: `python scripts/compute_normalizer.py TRAIN.yaml
key=value ...` (stages 1, 2, 9).

Runs the host's own argument checks, tokenizer and data loading, so the figure is the one that
`auto` would use; no model is loaded. For a stream it reads the data once without streaming. C =
mean(weight) x mean(target tokens), arXiv 2509.22637, App. C.
"""

from variational_reasoning.pipeline.commands import read_words, run_command

USAGE = """usage: python scripts/compute_normalizer.py TRAIN.yaml [key=value ...]
Prints the constant_loss_normalizer that `auto` would use, and the figures that it comes from."""


def main() -> None:
    """Print C and the figures that it comes from."""
    places, _ = read_words(USAGE)  # the host reads the words after the YAML
    if len(places) != 1 or not places[0].endswith((".yaml", ".yml")):
        raise ValueError(f"one training YAML is needed, not {' '.join(places) or 'none'}\n{USAGE}")
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args, read_args
    from llamafactory.model import load_tokenizer
    from llamafactory.train import tuner  # noqa: F401, importing the host's entry puts the plugin in place

    # None of these enters C, and they may ask for more than this one process, perhaps without a
    # GPU.
    here = {"streaming": False, "deepspeed": None, "bf16": False}
    here |= {"rows_per_step": None, "tokens_per_micro_batch": None}
    raw = {**read_args(), **here, "constant_loss_normalizer": "auto"}
    model_args, data_args, training_args, _, _ = get_train_args(raw)
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
    run = training_args.variational
    facts, weights = run.facts, run.facts.weight_summary()
    print(
        f"rows               {facts.rows} ({facts.dropped} dropped, longer than cutoff_len "
        f"{data_args.cutoff_len}{f', {facts.cut} with a shorter chain' if facts.cut else ''})"
    )
    print(
        f"target tokens      {int(facts.target_tokens.sum())}, mean "
        f"{facts.mean_target_tokens():.6f} per row"
    )
    print(
        f"weights            mean {weights['mean']:.6g}, min {weights['min']:.6g}, max "
        f"{weights['max']:.6g}"
    )
    print(f"constant_loss_normalizer: {run.constant_loss_normalizer!r}")


if __name__ == "__main__":
    run_command(main)
