"""What docs/architecture.md names exists: paths, and functions by their dotted names."""

import importlib
import re

ROOTS = ('vididi_jax.', '')


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one, below vididi_jax or at the top."""
    for root in ROOTS:
        module, _, attribute = (root + name).rpartition('.')
        try:
            if hasattr(importlib.import_module(module), attribute):
                return True
        except ImportError:
            pass
        module, _, owner = module.rpartition('.')
        try:
            if hasattr(getattr(importlib.import_module(module), owner, None), attribute):
                return True
        except (ImportError, ValueError):
            pass
    return False


def test_architecture_names_what_exists(root):
    text = (root / 'docs' / 'architecture.md').read_text()
    assert len(text.splitlines()) <= 60
    names = re.findall(r'`([\w./]+)`', text)
    paths = [name for name in names if name.endswith(('.py', '/', '.md', '.css', '.js'))]
    dotted = [name for name in names if '.' in name and name not in paths]
    assert len(paths) > 20 and len(dotted) > 15
    for path in paths:
        places = (root / path, root / 'vididi_jax' / path, root / 'vididi_jax' / 'models' / path)
        assert any(place.exists() for place in places), path
    for name in dotted:
        assert exists(name), name
