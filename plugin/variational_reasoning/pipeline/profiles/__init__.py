"""A profile in one command: what a model, a file of questions and a machine need (new_profile)."""
