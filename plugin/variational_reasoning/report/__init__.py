"""What a run looks like: a page with figures (scripts/report.py), cards beside its data sets and
models, pushing them.
"""
