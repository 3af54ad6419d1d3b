"""From video files to data sets of clips: `python -m data_prep DATASET --help`."""
