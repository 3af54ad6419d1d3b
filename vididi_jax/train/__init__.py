"""Pretraining: state, step, checkpoints, loop."""
