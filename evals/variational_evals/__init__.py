"""The benchmarks of the paper as SkyThought tasks, scored by the project's own verifier (App. D).

`tasks` reads the definitions and gives questions with their checks, without SkyThought; everything
that knows SkyThought is in the other modules. Importing this package imports nothing heavy.
"""
