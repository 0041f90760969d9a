"""Checks of kind reasoning_gym: the verifiers of the library reasoning-gym (stage 7)."""
