"""How good a model's work is: one task a file, each with its conventions, `validate`, pure functions and `evaluate`."""
