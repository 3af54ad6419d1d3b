"""The configs that come with the project: `--config=configs/NAME.py`, or `vididi train NAME`."""
