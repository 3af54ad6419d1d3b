"""Data sets at URLs: the same batches as from a folder, whatever the store makes of the requests."""

import errno
import fcntl
import random
import re
import shutil
from argparse import Namespace
from collections import Counter

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from data_prep import motion
from data_prep.__main__ import build_parser, run
from data_prep.writer import write_dataset
from tests.data.s3 import s3_server
from tests.data_prep.videos import ramp, write_video
from vididi_jax.data import pipeline, records, storage
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.tasks import check_workdir

WAYS = '5xx', 'timeout', 'cut', 'other bytes'


class Flaky(MemoryFileSystem):
    """flaky://: files in memory, of which a share of the requests fails in one of several ways."""

    protocol = 'flaky'
    store, pseudo_dirs = {}, ['']
    share, chance, seen = 0.0, random.Random(0), Counter()

    def cat_file(self, path, start=None, end=None, **kwargs):
        data = super().cat_file(path, start, end)
        return self.distort(data)

    def get_file(self, path, local, **kwargs):
        with open(local, 'wb') as file:
            file.write(self.cat_file(path))

    def ls(self, path, detail=True, **kwargs):
        self.distort(b'')
        return super().ls(path, detail, **kwargs)

    @classmethod
    def distort(cls, data):
        drawn = cls.chance.random()  # one draw a request, whatever thread asks
        way = WAYS[int(drawn / cls.share * len(WAYS))] if drawn < cls.share else 'fine'
        cls.seen[way] += 1
        if way == '5xx':
            raise OSError('503 Service Unavailable')
        if way == 'timeout':
            raise TimeoutError('no answer')
        if way == 'cut':
            return data[: len(data) // 2]
        return bytes(len(data)) if way == 'other bytes' else data


fsspec.register_implementation('flaky', Flaky, clobber=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VIDIDI_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(storage, 'PAUSE', 0)
    yield
    for store in (Flaky, MemoryFileSystem):
        store.store.clear()
    Flaky.share, Flaky.chance = 0.0, random.Random(0)
    Flaky.seen.clear()


def put(folder, url):
    """A data set copied to a URL, as a user's tool does."""
    system, path = fsspec.core.url_to_fs(url)
    for file in sorted(folder.rglob('*')):
        if file.is_file():
            system.pipe_file(f'{path}/{file.relative_to(folder)}', file.read_bytes())
    return url


def read(place, workers=0, batches=4, epochs=1):
    """The batches of some epochs; an epoch has `batches`."""
    source = RecordSource(place, 'train')
    stream = pipeline.training_stream(source, np.arange(len(source)), length=4, stride=2, placement='adjacent',
                                      batch_size=len(source) // batches, seed=0)
    with pipeline.iterate(stream, workers=workers) as found:
        return [next(found) for _ in range(batches * epochs)]


def same_batches(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize('workers', [0, 2])
def test_a_url_reads_as_a_folder_does(tiny_motion, workers):
    url = f'file://{tiny_motion}'
    same_batches(read(url, workers), read(tiny_motion))
    assert RecordSource(url, 'train').fingerprint == RecordSource(tiny_motion, 'train').fingerprint


def test_all_but_the_shards_is_copied_once(tiny_motion, monkeypatch):
    url, copied = put(tiny_motion, 'memory://bucket/motion'), []
    monkeypatch.setattr(storage, '_fetch', lambda *a, fetch=storage._fetch: (copied.append(a[1]), fetch(*a)))
    source = RecordSource(url, 'train')
    assert len(copied) == len(source.files) - 2 and not any('tfrecord' in path for path in copied)  # two shards
    assert len(RecordSource(url, 'test')) == 16 and len(copied) == len(source.files) - 2


def test_a_view_finds_its_store_at_a_url(tmp_path):
    """Splits of one store, as `data_prep ucf101 --split=all` writes them."""
    names = [f'v_Bowl_g{group:02d}_c01.avi' for group in (1, 2, 3)]
    (tmp_path / 'lists').mkdir()
    for name in names:
        write_video(tmp_path / 'videos' / 'Bowl' / name, ramp())
    (tmp_path / 'lists' / 'classInd.txt').write_text('1 Bowl\n')
    for split in (1, 2, 3):
        (tmp_path / 'lists' / f'testlist0{split}.txt').write_text(f'Bowl/{names[split - 1]}\n')
        (tmp_path / 'lists' / f'trainlist0{split}.txt').write_text(
            ''.join(f'Bowl/{name} 1\n' for name in names if name != names[split - 1]))
    run(build_parser().parse_args([
        'ucf101', f'--videos={tmp_path / "videos"}', f'--splits={tmp_path / "lists"}', '--split=all',
        '--short_side=32', f'--out={tmp_path / "out"}', '--workers=1']))
    url = put(tmp_path / 'out', 'memory://bucket/ucf101')
    there, here = (RecordSource(place, 'train') for place in (f'{url}/split2', tmp_path / 'out' / 'split2'))
    assert there.store == 'memory://bucket/ucf101/store' and list(there.ids) == list(here.ids)
    for a, b in zip(there, here, strict=True):
        np.testing.assert_array_equal(a.frames([0, 3, 3]), b.frames([0, 3, 3]))


def test_an_epoch_from_a_store_that_fails_holds_every_video_once(tiny_motion):
    """A tenth of all requests fail: by an error, a timeout, half an answer, or one of other bytes."""
    url = put(tiny_motion, 'flaky://bucket/motion')
    Flaky.share = 0.1
    found = read(url, batches=24, epochs=4)
    assert set(Flaky.seen) == {*WAYS, 'fine'} and 0.05 < 1 - Flaky.seen['fine'] / Flaky.seen.total()
    same_batches(found, read(tiny_motion, batches=24, epochs=4))
    for first in range(0, 96, 24):
        assert sorted(np.concatenate([batch['record'] for batch in found[first : first + 24]])) == list(range(48))


def test_a_store_that_keeps_failing_is_one_sentence_with_its_url(tiny_motion):
    url = put(tiny_motion, 'flaky://bucket/motion')
    source = RecordSource(url, 'train')
    Flaky.share = 1.0
    with pytest.raises(UserError, match=r'^flaky://bucket/motion/motion-train.tfrecord-\S+ cannot be read \(.*, tried '
                       r'8 times\): run the same command again when it can\.$'):
        source[3].frames([0])
    with pytest.raises(UserError, match=r'^flaky://bucket/motion/SHA256SUMS cannot be read'):
        RecordSource(url, 'train')


def test_bytes_that_stay_wrong_are_named(tiny_motion, tmp_path):
    copy = shutil.copytree(tiny_motion, tmp_path / 'copy')
    shard, = copy.glob('*-train.tfrecord-*')
    shard.write_bytes(bytes(shard.stat().st_size))
    source = RecordSource(put(copy, 'memory://bucket/motion'), 'train')
    with pytest.raises(UserError, match=r'memory://bucket/motion/motion-train\S+ cannot be read \(ValueError: the '
                       r'checksum of frame 2 is wrong, tried 8 times\)'):
        source[3].frames([2])


def test_what_is_not_there_is_not_waited_for(tiny_motion, monkeypatch):
    monkeypatch.setattr(storage, 'TRIES', None)  # to try again would be an error
    url = put(tiny_motion, 'memory://bucket/motion')
    system, path = fsspec.core.url_to_fs(url)
    with pytest.raises(UserError, match=r'memory://bucket/other is not a prepared data set \(it has no SHA256SUMS\)'):
        RecordSource('memory://bucket/other', 'train')
    system.pipe_file(f'{system._parent(path)}/videos/SHA256SUMS', f'{64 * "0"}  a.avi\n'.encode())
    with pytest.raises(UserError, match='bucket/videos is not a prepared data set .its SHA256SUMS is of other'):
        RecordSource('memory://bucket/videos', 'train')
    shard, = system.glob(f'{path}/*-train.tfrecord-*')
    system.rm_file(shard)
    with pytest.raises(UserError, match=r'the shard memory://\S+ is missing'):
        RecordSource(url, 'train')


def test_a_copy_that_was_broken_off_is_made_again(tiny_motion, monkeypatch):
    url, tried = put(tiny_motion, 'memory://bucket/motion'), []

    def stopped(*arguments, fetch=storage._fetch):
        tried.append(arguments)
        if len(tried) == 3:
            raise KeyboardInterrupt
        fetch(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(storage, '_fetch', stopped)
        RecordSource(url, 'train')
    assert len(RecordSource(url, 'train')) == 48


def test_a_data_set_that_was_replaced_at_its_url_is_copied_again(tiny_motion, tmp_path):
    plan, decode = motion.plan(Namespace(train=4, test=4, frames=4, size=8, seed=1))
    write_dataset(plan, decode, tmp_path / 'other', workers=1)
    url = put(tiny_motion, 'memory://bucket/motion')
    assert len(RecordSource(url, 'train')) == 48
    put(tmp_path / 'other', url)
    assert RecordSource(url, 'train').fingerprint == RecordSource(tmp_path / 'other', 'train').fingerprint


def test_checksums_of_which_whole_lines_are_lacking_are_asked_for_again(tiny_motion, monkeypatch):
    url, asked = put(tiny_motion, 'memory://bucket/motion'), []

    def answer(system, path, *arguments, cat=MemoryFileSystem.cat_file, **options):
        asked.append(path)
        data = cat(system, path, *arguments, **options)
        return b''.join(data.splitlines(keepends=True)[:4]) if len(asked) == 1 else data

    monkeypatch.setattr(MemoryFileSystem, 'cat_file', answer)
    assert RecordSource(url, 'train').fingerprint == RecordSource(tiny_motion, 'train').fingerprint
    assert asked[0] == asked[1] == '/bucket/motion/SHA256SUMS'


@pytest.mark.parametrize('locks', [True, False])
def test_what_a_process_that_was_killed_has_left_in_the_cache_goes(tiny_motion, monkeypatch, locks):
    """Unless the file system knows no locks: then another process may be at it."""
    def unknown(file, operation):
        raise OSError(errno.ENOLCK, 'No locks available')

    if not locks:
        monkeypatch.setattr(fcntl, 'flock', unknown)
    copy = storage.local_copy(put(tiny_motion, 'memory://data'))
    (copy / 'incomplete-a1b2' / 'deep').mkdir(parents=True)
    (copy / 'counts.json').unlink()
    assert storage.local_copy('memory://data') == copy and (copy / 'counts.json').is_file()
    assert [path.name for path in copy.glob('incomplete-*')] == ([] if locks else ['incomplete-a1b2'])


def test_a_copy_that_has_lost_a_file_is_made_again_and_a_damaged_one_is_named(tiny_motion, tmp_path):
    url = put(tiny_motion, 'memory://bucket/motion')
    (tmp_path / 'cache').mkdir(exist_ok=True)
    source = RecordSource(url, 'train')
    source[0].frames([0])
    (source.directory / records.MANIFEST).unlink()
    assert RecordSource(url, 'train').rows[0]['id']
    table = source.directory / records.frames_name(source.name, 'train')
    for path, use in ((source.directory / records.COUNTS, lambda: RecordSource(url, 'train')),
                      (table, lambda: [record.frames([0]) for record in RecordSource(url, 'train')])):
        data = path.read_bytes()
        path.write_bytes(data[:-20] + bytes(20))
        with pytest.raises(UserError, match=f'{source.directory} is but a copy of {url}: delete that folder'):
            use()
        path.write_bytes(data)


def test_a_cache_that_cannot_be_written_to_is_named(tiny_motion, tmp_path, monkeypatch):
    url = put(tiny_motion, 'memory://bucket/motion')
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('VIDIDI_CACHE', str(tmp_path / 'file'))
    with pytest.raises(UserError, match=f'the cache {tmp_path}/file/.* cannot be written to .*set VIDIDI_CACHE'):
        RecordSource(url, 'train')
    monkeypatch.setenv('VIDIDI_CACHE', str(tmp_path / 'other'))
    monkeypatch.setattr(storage, '_fetch', lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(UserError, match='the cache .*/other/.* cannot be written to .No space left.*VIDIDI_CACHE'):
        RecordSource(url, 'train')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('VIDIDI_CACHE', '~/cache')
    with pytest.raises(UserError, match="VIDIDI_CACHE is '~/cache', and only shells expand ~"):
        RecordSource(url, 'train')


def test_a_url_of_several_data_sets_says_so(tiny_motion):
    put(tiny_motion, 'memory://bucket/both/store')
    with pytest.raises(UserError, match='both holds several data sets: name one of the folders'):
        RecordSource('memory://bucket/both', 'train')


@pytest.mark.parametrize(('url', 'message'), [
    ('nothing://bucket/motion', 'nothing://bucket/motion cannot be opened: Protocol not known: nothing.'),
    ('dropbox://bucket/motion', 'dropbox://bucket/motion cannot be opened: .*to be installed')])
def test_a_url_that_cannot_be_opened_is_one_sentence(url, message):
    with pytest.raises(UserError, match=message):
        RecordSource(url, 'train')


def test_a_file_system_that_asks_its_server_at_once_and_has_no_answer_is_one_sentence(monkeypatch):
    """As GitHub's; clients have errors that the system has no words for."""
    monkeypatch.setattr(fsspec.core, 'url_to_fs', lambda url: (_ for _ in ()).throw(OSError('no route')))
    with pytest.raises(UserError, match='github://a:b@/x cannot be read .OSError: no route.: run the same command aga'):
        RecordSource('github://a:b@/x', 'train')


@pytest.mark.parametrize('words', [['motion', '--out=s3://bucket/a'], ['verify', 's3://bucket/a']])
def test_what_needs_a_file_system_says_so(words):
    with pytest.raises(UserError, match='s3://bucket/a is a URL'):
        run(build_parser().parse_args(words))
    with pytest.raises(UserError, match="--workdir is 's3://bucket/run', and a run writes to a file system"):
        check_workdir('s3://bucket/run', 'pretrain')


def test_parts_that_lie_close_are_asked_for_together(monkeypatch):
    content = bytes(np.random.default_rng(0).integers(0, 256, 300_000, np.uint8))
    fsspec.filesystem('memory').pipe_file('/a', content)
    places = (250_000, 0, 9, 70_000, 120), (10, 9, 20, 100, 0)
    parts = [storage.Part('memory:///a', *place) for place in zip(*places, strict=True)]
    asked = []
    monkeypatch.setattr(MemoryFileSystem, 'cat_file', lambda self, path, start, end: asked.append((start, end)) or
                        content[start:end])
    assert storage.read_parts(parts, lambda number, data: None) == [
        content[part.offset : part.offset + part.length] for part in parts]
    assert asked == [(0, 120), (70_000, 70_100), (250_000, 250_010)] or asked == [(0, 70_100), (250_000, 250_010)]


@pytest.mark.s3
def test_an_epoch_from_s3(tiny_motion, monkeypatch):
    """A server in this process, with an empty answer, an error or a cut answer for a tenth of what is asked for."""
    with s3_server(monkeypatch) as server:
        url = put(tiny_motion, 's3://bucket/motion')
        answer, chance, failed = server._server.app, random.Random(0), Counter()

        def unsure(environment, start_response):
            way = chance.choice(('500', 'cut')) if chance.random() < 0.1 else ''
            failed[way] += 1
            if way == '500':
                start_response('500 Internal Server Error', [('Content-Length', '0')])
                return [b'']
            body = list(answer(environment, start_response))
            return [b''.join(body)[:-1]] if way == 'cut' and environment['REQUEST_METHOD'] == 'GET' else body

        server._server.app = unsure
        found = read(url, batches=24)
        assert failed['500'] and failed['cut'], failed
        same_batches(found, read(tiny_motion, batches=24))
        same_batches(read(url, workers=2), read(tiny_motion))
    with pytest.raises(UserError, match=r'^s3://bucket/motion/SHA256SUMS cannot be read') as stopped:
        RecordSource(url, 'train')
    assert re.fullmatch('[^\n]+', str(stopped.value))
