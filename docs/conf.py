"""The pages of docs/ as a site, with the reference from the docstrings: `make docs`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = 'vididi_jax'
author = copyright = 'The vididi_jax developers'
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.mathjax', 'sphinx_copybutton']
html_theme = 'furo'
html_title = 'vididi_jax'
myst_heading_anchors = 3
default_role = 'code'  # what stands in single backticks in a docstring
add_module_names = False
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_preserve_defaults = True
copybutton_prompt_text = r'\$ |>>> '
linkcheck_timeout = 20

# Links are written for readers of the checkout; on the site a page stands for the file, or the file can be taken along.
PAGES = {'../benchmarks/RESULTS.md': 'measurements.md', '../README.md': 'index.md'}


def point_at_pages(app, name, text):
    """Replace, in a page as it is read, links to files that the site has as pages."""
    for file, page in PAGES.items():
        text[0] = re.sub(rf'\]\({re.escape(file)}', f']({page}', text[0])


def setup(app):
    app.connect('source-read', point_at_pages)
