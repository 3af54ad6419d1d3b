"""The configs that come with the project. In a checkout they are the files of `configs/`; a wheel holds these here."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / 'configs')]
