"""A stage as shards that many processes share: its job, its launch, its counts."""
