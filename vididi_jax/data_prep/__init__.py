"""From video files to data sets of clips. In a checkout it is the folder `data_prep/`; a wheel holds that here."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / 'data_prep')]
