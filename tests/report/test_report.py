"""The report: neighbours, map and saliency of what they say, and, where there is a browser, that the page answers."""

import html
import io
import json
import re
import shutil
import subprocess
from contextlib import redirect_stdout

import flax.linen as nn
import numpy as np
import pytest
from PIL import Image

from tests.data_sets import edit_rows
from vididi_jax import config as configs
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate import retrieval
from vididi_jax.evaluate.protocol import Fold, whole
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.report import evidence, looks, page, summary, views
from vididi_jax.report.animation import SIDE, Clips, animation, evenly
from vididi_jax.report.gallery import gallery_section
from vididi_jax.report.html import paragraph, table
from vididi_jax.report.results import class_rows, figure_rows
from vididi_jax.report.scatter import embed
from vididi_jax.report.summary import headlines
from vididi_jax.report.views import views_section, visible
from vididi_jax.tasks import run_task
from vididi_jax.train import pretrain
from vididi_jax.train.encoder import Encoder
from vididi_jax.train.run import workdir_config

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


@pytest.fixture(scope='module')
def evaluated(root, finished, tmp_path_factory):
    """A finished run, evaluated before and after training: (workdir, {encoder: metrics}, what was printed)."""
    workdir, metrics = shutil.copytree(finished[0], tmp_path_factory.mktemp('report') / 'work'), {}
    with redirect_stdout(io.StringIO()) as printed:
        for encoder in ('untrained', 'trained'):
            config = configs.load_config(f'{root}/configs/retrieval.py:smoke')
            config.eval.untrained = encoder == 'untrained'
            config.eval.name = 'untrained' if config.eval.untrained else 'retrieval'
            metrics[encoder] = retrieval.run(config, str(workdir))
    return workdir, metrics, printed.getvalue()


@pytest.fixture(scope='module')
def reported(root, evaluated):
    """That run with its report, and itself beside it: (workdir, text of the page, what was printed)."""
    config = configs.load_config(f'{root}/configs/report.py:smoke')
    config.beside = str(evaluated[0])
    with redirect_stdout(io.StringIO()) as printed:
        page.run(config, config.beside)
    return evaluated[0], (evaluated[0] / 'report' / 'index.html').read_text(), printed.getvalue()


def test_retrieval_tells_what_it_ran_on(evaluated):
    workdir, metrics, printed = evaluated
    result = json.loads((workdir / 'eval' / 'retrieval' / 'results.json').read_text())
    assert result['metrics'] == metrics['trained'] and set(result['metrics']) == {'V', 'dV', 'd2V', 'joined'}
    assert list(result['metrics']['V']) == ['R@1', 'R@5', 'R@10', 'R@20', 'R@50']
    assert result['counts']['test'] == {
        'listed': 16, 'ok': 16, 'missing': 0, 'broken': 0, 'videos': 16, 'looped': 0, 'dropped': 0,
        'clips_per_video': 3}
    assert result['chance'] == 12.5 and result['seed'] == 0 and result['checkpoint_step'] == 24
    assert result['clips_x_crops'] == '3 x 1 (centre)' and re.match(r'[0-9a-f]{40}|unknown', result['commit'])
    assert {'jax', 'flax', 'python'} <= set(result['versions'])
    assert '3 x 1 (centre) views, 3.0 different clips a video' in printed


def test_a_report_ends_with_the_figures_before_and_after_training(evaluated, reported):
    untrained, trained = (evaluated[1][encoder]['joined']['R@1'] for encoder in ('untrained', 'trained'))
    assert reported[2].splitlines()[-1] == f'R@1 untrained={untrained:.1f} trained={trained:.1f} chance=12.5'


def test_a_report_without_videos_has_the_rest(evaluated, reported, tmp_path, root):
    workdir = shutil.copytree(evaluated[0], tmp_path / 'work')
    shutil.rmtree(workdir / 'eval' / 'cache')
    config = configs.load_config(f'{root}/configs/report.py')
    config.data.dir = str(tmp_path / 'gone')
    page.run(config, str(workdir))
    text = (workdir / 'report' / 'index.html').read_text()
    assert 'Left out: ' in text and '<section' not in text
    assert f'{evaluated[1]["trained"]["joined"]["R@1"]:.1f} %' in text
    assert 'test: 16 of 16 listed videos, 0 looped, 3.0 different clips a video' in text


def test_neighbours_of_the_gallery_are_those_of_the_features(reported):
    workdir, text, _ = reported
    result = json.loads((workdir / 'eval' / 'retrieval' / 'results.json').read_text())
    found = evidence.take_up(workdir, result, '')
    cards = re.findall(r'<article class="query".*?</article>', text)
    assert len(cards) == len(found.fold.test.videos) == 16
    for card in cards:
        asked, *near = map(html.unescape, re.findall(r'<figure[^>]* title="(.*?)"', card))
        query = [row['id'] for row in found.fold.test.rows].index(asked)
        for kind, ids in (('V', near[:5]), ('dV', near[5:])):
            x, y = found.test[kind][query], found.train[kind]
            cosines = y @ x / np.linalg.norm(x) / np.linalg.norm(y, axis=1)
            place = {row['id']: cosine for row, cosine in zip(found.fold.train.rows, cosines, strict=True)}
            # Equal clips may stand in another order: it is the cosines that must be the largest five.
            np.testing.assert_allclose([place[i] for i in ids], np.sort(cosines)[::-1][:5], atol=1e-9)
        labels = {row['id']: row['label'] for side in (found.fold.train, found.fold.test) for row in side.rows}
        sides = re.findall(r'<figure class="(right|wrong)"', card)
        assert sides == ['right' if labels[i] == labels[asked] else 'wrong' for i in near]
        right = sides[0] == sides[5] == 'right'
        assert f'data-right="{"yes" if right else ""}"' in card


def test_the_page_says_what_the_run_is_and_needs_nothing_else(reported):
    _, text, _ = reported
    assert '<h1>VICReg, schedule vididi, pretrained on motion</h1>' in text and 'seed 0' in text
    assert text.count('<circle') == 16 and 'by t-SNE of their features of V' in text
    assert not re.search(r'(src|href)="(?!data:)|https?://', text) and 'framework.projector' in text
    assert all(f'<section id="{name}">' in text for name in ('gallery', 'map', 'saliency'))
    clips = json.loads(re.search(r'id="clips">(.*?)</script>', text)[1])
    used = {int(number) for number in re.findall(r'data-clip="(\d+)"', text)}
    assert used == set(range(len(clips))) and len(set(clips)) == len(clips)


def test_only_results_of_one_question_stand_side_by_side(reported):
    results = page.read_results(reported[0])
    line, = headlines(results)
    untrained, trained = (results[name]['metrics']['joined']['R@1'] for name in ('untrained', 'retrieval'))
    assert str(line) == f'R@1 untrained={untrained:.1f} trained={trained:.1f} chance=12.5'
    other = {**results['retrieval'], 'protocol': 'weizmann/train-test', 'date': '2100-01-01', 'chance': 10.0,
             'metrics': {kind: {'R@1': 0.0} for kind in results['retrieval']['metrics']}}
    assert headlines({**results, 'other': other}) == [line]
    assert headlines({'other': other, 'untrained': results['untrained']}) == []
    config = results['retrieval']['config']
    for changes in ({'config': config | {'eval': config['eval'] | {'frames': 7}}}, {'fingerprint': 'of other data'}):
        assert headlines({**results, 'retrieval': results['retrieval'] | changes}) == []
    assert '<img' in page.recall_section(results)[1]


def test_a_result_that_is_cut_is_one_sentence(tmp_path):
    (tmp_path / 'eval' / 'tug').mkdir(parents=True)
    (tmp_path / 'eval' / 'tug' / 'results.json').write_text('{"task": "tug", ')
    with pytest.raises(UserError, match=f'results.json is damaged .*: evaluate {tmp_path} again'):
        page.read_results(tmp_path)
    (tmp_path / 'eval' / 'tug' / 'results.json').write_text('{"task": "tug", "metrics": {}}')
    with pytest.raises(UserError, match=f'is not whole .it has no config.: evaluate {tmp_path} again'):
        page.read_results(tmp_path)


@pytest.mark.parametrize(('name', 'module'), [('motion_vicreg', pretrain), ('retrieval', retrieval)])
def test_training_and_evaluation_write_the_page_anew(root, finished, monkeypatch, capsys, name, module):
    monkeypatch.setattr(module, 'run', lambda config, workdir: 'result')
    written = []
    monkeypatch.setattr(page, 'write', lambda workdir: (written.append(workdir), ('page', []))[1])
    config = configs.load_config(f'{root}/configs/{name}.py:smoke')
    for report, times in ((True, 1), (False, 1)):
        assert run_task(config, str(finished[0]), report=report) == 'result'
        assert written == [str(finished[0])] * times
    assert 'report written to page' in capsys.readouterr().out


def test_many_classes_are_shown_from_first_to_last():
    labels = np.repeat(np.arange(101), 3)
    for count, classes in ((2, [0, 100]), (32, None), (101, range(101))):
        shown = labels[evidence.evenly_by_class(labels, count)]
        assert len(shown) == len(set(shown)) == count and {shown[0], shown[-1]} == {0, 100}
        assert classes is None or list(shown) == list(classes)
    few = labels[evidence.evenly_by_class(labels[:9], 7)]
    assert np.bincount(few).tolist() == [3, 2, 2]


def test_a_report_of_other_data_or_beside_nothing_says_so(reported, tmp_path, monkeypatch):
    workdir = reported[0]
    result = page.read_results(workdir)['retrieval']
    with pytest.raises(UserError, match='are not those of the result'):
        evidence.take_up(workdir, {**result, 'fingerprint': 'another'}, '')
    with pytest.raises(UserError, match='no config.json'):
        page.write(str(workdir), beside=str(tmp_path))
    shutil.copy(workdir / 'config.json', tmp_path)
    before = (workdir / 'report' / 'index.html').stat().st_mtime_ns
    with pytest.raises(UserError, match='has no checkpoint'):
        page.write(str(workdir), beside=str(tmp_path))
    assert (workdir / 'report' / 'index.html').stat().st_mtime_ns == before
    with monkeypatch.context() as patched:
        patched.setattr('vididi_jax.train.pretrain.trained_data', lambda workdir: 'of other data')
        assert f'are not those that {workdir} was trained on: set' in page.write(str(workdir))[0].read_text()
    # What is in order stays: here the views of training, without the evaluation's videos.
    monkeypatch.setattr(page, 'latest_retrieval', lambda results: {**result, 'fingerprint': 'another'})
    text = page.write(str(workdir))[0].read_text()
    assert 'Left out: the data in' in text and 'id="gallery"' not in text and 'What training sees' in text


def test_a_report_is_of_the_checkpoint_that_was_evaluated(reported, monkeypatch):
    workdir = reported[0]
    result = page.read_results(workdir)['retrieval']
    assert evidence.take_up(workdir, result, '').evaluation.encoder.step == result['checkpoint_step'] == 24
    with pytest.raises(UserError, match="no checkpoint '7'"):
        evidence.take_up(workdir, {**result, 'checkpoint_step': 7}, '')


def test_a_run_of_fine_tuning_has_no_report_of_its_own(reported, tmp_path):
    values = json.loads((reported[0] / 'config.json').read_text())
    del values['framework']
    (tmp_path / 'config.json').write_text(json.dumps(values))
    with pytest.raises(UserError, match='is a run of fine-tuning or detection'):
        page.write(str(tmp_path))


class Linear(nn.Module):
    @nn.compact
    def __call__(self, clips, train=False, views=1):
        return nn.Dense(5, use_bias=False)(clips.reshape(len(clips), -1))


def test_figures_of_saliency_are_those_of_plain_numpy(reported, monkeypatch):
    """Of a linear encoder, whose gradient is its weights: the middle clip of every test video."""
    workdir = reported[0]
    found = evidence.take_up(workdir, page.read_results(workdir)['retrieval'], '')
    weights, augment = np.random.default_rng(0).normal(size=(6144, 5)) / 100, found.evaluation.encoder.augment
    encoder = Encoder(Linear(), {'params': {'Dense_0': {'kernel': np.float32(weights)}}}, augment, 0)
    monkeypatch.setattr(looks, 'encoders_of', lambda *_: {'linear': encoder})
    rows = dict(re.findall(r'<td>(.*?)</td><td>(.*?)</td>', looks.looks_section(found, {})))
    test = found.fold.test
    frames = np.stack([test.source[int(i)].frames(range(8, 16)) for i in test.videos]) / 255
    x = ((frames - np.array(augment.mean)) / np.array(augment.std)).reshape(16, -1)
    own = x @ weights - (x @ weights).mean(0)
    seen = np.abs((x * (own @ weights.T)).reshape(frames.shape).sum(-1))
    change, moves = (np.abs(np.diff(frames, axis=1)) > 0.1).any(-1), np.zeros(frames.shape[:-1], bool)
    moves[:, 1:] |= change
    moves[:, :-1] |= change
    share = ((seen * moves).sum((1, 2, 3)) / seen.sum((1, 2, 3))).mean()
    assert float(rows['linear']) == pytest.approx(100 * share, abs=0.06)  # printed with one digit
    assert float(rows['moving pixels themselves, the share of an even saliency']) == pytest.approx(
        100 * moves.mean(), abs=0.06)


def test_views_are_the_pixels_and_gray_where_nothing_changes():
    x, spec = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3)), Augmentation()
    x[:, 0] = 9
    normalised = (x / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_array_equal(visible(normalised, 0, spec), x)
    change = np.diff(normalised, axis=0)
    seen = visible(change, 1, spec)
    assert (seen[:, 0] == 128).all() and {0, 255} & {int(seen.min()), int(seen.max())}
    assert ((seen > 128) <= (change > 0)).all() and ((seen < 128) <= (change < 0)).all()


@pytest.mark.parametrize(('schedule', 'names', 'text'), [
    ('base', ['V'], 'base'), ('derivative_only', ['dV'], 'derivative_only'),
    ({'phases': ((0, 2),)}, ['V', 'd2V'], '{"phases": [[0, 2]]}')])
def test_views_are_those_that_the_schedule_has(reported, schedule, names, text):
    """Also a schedule that is spelled out."""
    training = workdir_config(reported[0])
    with training.unlocked(), training.ignore_type():
        training.schedule = schedule
    section = views_section(training, RecordSource(training.data.dir, 'train'), Clips())
    assert re.findall(r'<figcaption>(.*?)</figcaption>', section)[:2 * len(names)] == [
        f'{name} of view {view}' for view in (1, 2) for name in names]
    assert summary.schedule_of(training) == text


def test_a_section_that_cannot_be_made_leaves_the_others(reported, monkeypatch):
    def fail(*_):
        raise UserError('no map today')

    monkeypatch.setattr(page, 'map_section', fail)
    text = page.write(str(reported[0]))[0].read_text()
    assert 'Left out: no map today' in text and 'id="gallery"' in text and 'id="saliency"' in text


def test_an_animation_keeps_its_frames_and_shrinks_what_is_large():
    frames = np.random.default_rng(0).integers(0, 256, (5, 100, 200, 3)).astype(np.uint8)
    with Image.open(io.BytesIO(animation(frames))) as image:
        assert image.n_frames == 5 and image.size == (SIDE, SIDE // 2)
    assert evenly(100).tolist()[::23] == [0, 99] and evenly(3).tolist() == [0, 1, 2]


def test_a_map_keeps_what_is_near_together():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    places = embed(np.eye(8)[labels] + 0.01 * rng.normal(size=(60, 8)))
    assert places.min() == 0 and places.max() == 1
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.eye(60)
    assert (labels[distance.argmin(1)] == labels).all()


@pytest.mark.parametrize('features', [np.ones((20, 6)), np.full((20, 6), 1e-8)])
def test_a_collapsed_encoder_has_no_map_and_no_crash(features):
    with pytest.raises(UserError, match='the encoder has collapsed'):
        embed(features)


def test_clips_without_a_saliency_are_told():
    assert looks.mean_share(np.array([0.2, np.nan, 0.4])) == '30.0 (of 2 clips; nothing tells the others apart)'
    assert looks.mean_share(np.array([0.2, 0.4])) == '30.0'
    assert looks.mean_share(np.array([np.nan])).startswith('none')


def test_classes_are_told_with_what_they_are_taken_for():
    counts = np.array([[5, 0, 3, 1, 1], [0, 0, 0, 0, 0], [0, 0, 4, 0, 0], [9, 0, 1, 0, 0], [1, 2, 3, 4, 0]])
    rows = class_rows(counts, list('abcde'))
    assert rows == [('a', 10, '50', 'c 3, d 1, e 1'), ('c', 4, '100', ''), ('d', 10, '0', 'a 9, c 1'),
                    ('e', 10, '0', 'd 4, c 3, b 2')]


@pytest.mark.skipif(BROWSER is None, reason='no Chromium here')
def test_the_page_answers_in_a_browser_without_a_message(reported, tmp_path):
    """Filter by class and by wrong, hover of the map, all pictures loaded; the console stays empty."""
    _, text, _ = reported
    probe = """
    <script>addEventListener('load', () => setTimeout(async () => {
      const shown = () => document.querySelectorAll('.query:not([hidden])').length;
      const found = {all: shown(), loaded: [...document.images].every(i => i.complete && i.naturalWidth > 0)};
      const change = element => element.dispatchEvent(new Event('change'));
      const choice = document.querySelector('[name=class]'), wrong = document.querySelector('[name=wrong]');
      choice.value = choice.options[1].value; change(choice); found.of_class = shown();
      choice.value = ''; wrong.checked = true; change(choice); found.wrong = shown();
      const point = document.querySelector('circle'), tip = document.querySelector('.tip');
      point.dispatchEvent(new Event('pointerenter'));
      found.tip = !tip.hidden && tip.textContent === point.getAttribute('aria-label');
      point.dispatchEvent(new Event('pointerleave')); found.gone = tip.hidden;
      const button = document.querySelector('.legend button'); button.click();
      found.dim = document.querySelectorAll('circle.dim').length;
      const stops = () => [...document.querySelectorAll('circle')].filter(other => other.tabIndex === 0);
      const before = stops()[0];
      before.focus();
      before.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
      found.arrow = stops().length === 1 && stops()[0] !== before && !stops()[0].classList.contains('dim');
      const animated = [...document.images].filter(i => i.src.startsWith('data:image/webp')).length;
      document.getElementById('motion').click();
      await new Promise(done => setTimeout(done, 300));
      found.held = animated > 0 && ![...document.images].some(i => i.src.startsWith('data:image/webp'));
      found.wide = document.documentElement.scrollWidth > innerWidth;
      document.body.innerHTML = '<pre>' + JSON.stringify(found) + '</pre>';
    }, 300));</script>"""
    (tmp_path / 'page.html').write_text(text.replace('</body>', f'{probe}</body>'))
    done = subprocess.run(
        (BROWSER, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={tmp_path / "user"}',
         '--enable-logging=stderr', '--window-size=390,900', '--virtual-time-budget=5000', '--dump-dom',
         f'file://{tmp_path / "page.html"}'), capture_output=True, text=True, timeout=120)
    found = json.loads(html.unescape(re.search(r'<pre>(\{.*?\})</pre>', done.stdout)[1]))
    wrong = text.count('data-right=""')
    assert found == {'all': 16, 'loaded': True, 'of_class': 2, 'wrong': wrong, 'tip': True, 'gone': True, 'dim': 14,
                     'arrow': True, 'held': True, 'wide': False}
    assert 'CONSOLE' not in done.stderr, done.stderr


def result(encoder, date, value, **changes):
    """Of retrieval, what the page reads of it."""
    return {'task': 'retrieval', 'encoder': encoder, 'date': date, 'chance': 1.0, 'checkpoint_step': 3,
            'protocol': 'a/b', 'counts': {'train': {'videos': 5}, 'test': {'videos': 9}},
            'metrics': {'joined': {'R@1': value}}, **changes}


def test_of_several_results_the_newest_counts():
    found = {'a': result('trained', '2026-01-02', 20.0), 'b': result('trained', '2026-01-03', 30.0),
             'c': result('trained', '2026-01-01', 10.0), 'd': result('untrained', '2026-01-04', 5.0),
             'e': result('untrained', '2026-01-01', 4.0)}
    assert evidence.latest_retrieval(found) is found['b']
    line, = summary.headlines(found)
    assert (line.untrained, line.trained) == (5.0, 30.0)


def test_names_are_text_in_a_table():
    assert table([('<b>&', 1)], ('<i>', 'n')) == (
        '<div class="scroll" tabindex="0"><table><tr><th>&lt;i&gt;</th><th>n</th></tr>'
        '<tr><td>&lt;b&gt;&amp;</td><td>1</td></tr></table></div>')
    assert paragraph('<b>') == '<p>&lt;b&gt;</p>'


def test_deviations_over_folds_are_on_the_page():
    header, rows = figure_rows({'V': {'R@1': 12.34, 'R@5': 50.0}}, {'V': {'R@1': 1.26, 'R@5': 2.0}}, 3)
    assert rows == [('V', '12.3 ± 1.3', '50.0 ± 2.0')] and header == ('features, percent', 'R@1', 'R@5')


def test_cosines_stand_under_the_pictures(tiny_motion):
    test, train = (whole(RecordSource(tiny_motion, split)) for split in ('test', 'train'))
    x, y = (np.random.default_rng(n).normal(size=(n, 5)) for n in (16, 48))
    fold = Fold('', train, test)
    text = gallery_section(evidence.Evidence(None, fold, {'V': x, 'dV': x}, {'V': y, 'dV': y}), Clips())
    cosine = x @ y.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
    shown = np.array(re.findall(r'<br>([-.\d]+)</figcaption>', text), float).reshape(16, 2, 5)
    np.testing.assert_allclose(shown, np.tile(-np.sort(-cosine)[:, None, :5], (1, 2, 1)), atol=6e-5)


def test_a_result_by_groups_is_on_the_page(tiny_motion):
    grouped = {'counts': {'all': {'videos': 9}}, 'metrics': {kind: {'R@1': 1.0} for kind in ('V', 'joined')}}
    found = {'a': result('trained', '1', 1.0, **grouped), 'b': result('untrained', '1', 1.0, **grouped)}
    assert '9 videos of a/b' in summary.headlines(found)[0].about
    assert 'the 9 test videos' in page.recall_section(found)[1]


def test_views_are_of_videos_that_training_uses(tiny_motion, tmp_path, monkeypatch):
    data, shown = shutil.copytree(tiny_motion, tmp_path / 'data'), []
    edit_rows(data, lambda i, row: row | ({'frames': 12} if i in (0, 1, 2) else {}))
    training = configs.load_config('configs/motion_vicreg.py:smoke')
    training.clip.short_video, training.augment.size = 'drop', 16
    load = views.pipeline.load_whole
    monkeypatch.setattr(views.pipeline, 'load_whole', lambda source, records, indices: (
        shown.extend(source.ids[records]), load(source, records, indices))[1])
    assert '3 of the 45 videos used of split' in views.views_section(training, RecordSource(data, 'train'), Clips())
    assert shown == list(RecordSource(data, 'train').ids[[3, 25, 47]])
