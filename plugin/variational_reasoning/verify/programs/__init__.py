"""Programs that a model wrote, judged by their tests (stage 7, check kind `program`).

`blocks` finds the program in an answer, `records` reads the tests, `judge` runs it on them in a
sandbox, and `compare` compares what it gives. `worker` is the process that does so for `pool`.
`livecodebench` reads rows of LiveCodeBench.
"""
