"""What a run looks like: a page with figures (scripts/report.py), cards next to its data sets and
models, pushing them.
"""
