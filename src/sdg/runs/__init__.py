"""Runs that can be killed and resumed: their inputs, journals, checkpoints and logs."""
