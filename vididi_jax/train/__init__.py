"""Training, pretraining and supervised: state, step, update, checkpoints, loop."""
