"""A stage as shards that many processes share: what a job is, how it is launched, what it
counts.
"""
