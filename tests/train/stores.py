"""What tests of a mirror have in common: a store in memory, and a run's folder."""

import shutil

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from vididi_jax.train import integrity, mirror

URL = 'store://bucket/runs/a'


class Store(MemoryFileSystem):
    """store://: files in memory, where `refuse` is called before each request; listings are kept, as others do."""

    protocol = 'store'
    store, pseudo_dirs = {}, ['']
    asked, listed = [], {}

    @staticmethod
    def refuse(name, path):
        """To be replaced."""

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name in ('put_file', 'pipe_file', 'get_file', 'cat_file', 'rm', 'rm_file'):
            def request(*args, **kwargs):
                path = args[name == 'put_file']
                Store.asked.append((name, path.removeprefix(f'{URL}/')))
                Store.refuse(name, path)
                return found(*args, **kwargs)
            return request
        return found

    def find(self, path, **kwargs):
        if path not in Store.listed:
            Store.listed[path] = super().find(path, **kwargs)
        return Store.listed[path]

    def invalidate_cache(self, path=None):
        Store.listed.clear()

    @classmethod
    def forget(cls):
        for kept in (cls.store, cls.asked, cls.listed):
            kept.clear()


fsspec.register_implementation('store', Store, clobber=True)


def there():
    """Names and contents at the URL, but for the note of whose they are."""
    system, path = fsspec.core.url_to_fs(URL)
    system.invalidate_cache()
    return {name.removeprefix(f'{path}/'): system.store[name].getvalue() for name in system.find(path)
            if not name.endswith(mirror.OWNER)}


def here(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def begin(folder):
    """A run's folder, with its config."""
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text('{"seed": 0}', encoding='utf-8')
    return folder


def train(folder, step):
    """What a training leaves at a step: metrics, then the checkpoint; the one before the last is deleted."""
    with (folder / 'metrics.jsonl').open('a', encoding='utf-8') as file:
        file.write(f'{{"step": {step}}}\n')
    checkpoint = folder / 'checkpoints' / str(step)
    (checkpoint / 'state').mkdir(parents=True)
    (checkpoint / 'state' / 'arrays').write_bytes(bytes([step]) * 1000)
    (checkpoint / 'zuletzt').write_text(f'{step}', encoding='utf-8')  # a name that comes after checksums.json
    integrity.write_checksums(checkpoint)
    shutil.rmtree(folder / 'checkpoints' / str(step - 2), ignore_errors=True)
