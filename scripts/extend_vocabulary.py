"""A model with the symbols of abstract traces (before the first training of that method)."""

from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.pipeline.options import read_options
from variational_reasoning.pipeline.vocabulary import ExtendOptions, extend

USAGE = """usage: python scripts/extend_vocabulary.py base=DIR out=DIR [symbols=64] [init=mean_noise|zeros|steps] [noise=0.001] [seed=0] [untie=true] [clusters=FILE]
Adds <beginabstract>, <endabstract> and the symbols <TOKEN_A>, <TOKEN_B>, ... to the model in base, one token each, and writes it to out.
init=steps starts a symbol as the mean of the tokens of its cluster (clusters=FILE). Leave the host's add_tokens and resize_vocab unused afterwards."""


def main() -> None:
    options = read_options(USAGE, ExtendOptions)
    vocabulary = extend(options)
    first, last = vocabulary.symbol_ids[0], vocabulary.symbol_ids[-1]
    print(
        f"wrote {options.out}: {len(vocabulary.symbol_ids)} symbols (ids {first} to {last}), begin "
        f"{vocabulary.begin_id}, end {vocabulary.end_id}"
    )


if __name__ == "__main__":
    run_command(main)
