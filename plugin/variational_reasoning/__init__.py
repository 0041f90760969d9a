"""Variational reasoning for language models (arXiv 2509.22637): a LLaMA-Factory plugin and the
pipeline between its trainings.

`method` holds the paper as pure functions, `host` is the only code that knows LLaMA-Factory,
`pipeline` and `verify` work on rows between the trainings. Importing this package imports nothing
else, because every interpreter of the environment does so.

Symbols used everywhere (section 2 of the paper):

    x        question      prompt text
    z        trace         the thinking text; its end marker belongs to it
    y, y*    answer, solution   what follows the trace; the reference
    y'       hint          what the posterior is shown; here the reference solution
    pi       reasoner      pi(z, y | x)
    q        posterior     q(z | x, y')
"""

__version__ = "0.1.0"
