r"""Is a final answer the gold answer? Checks of kind `math` (stage 7, and the evaluation).

`answers` decides, in this order: the same text in one spelling (`spelling`), the plain rules
(`rules`, on the forms that `numbers`, `lists` and `forms` read), Math-Verify (`algebra`, only
inside `worker`). `boxes` and `extraction` find the answer in a text.
"""
