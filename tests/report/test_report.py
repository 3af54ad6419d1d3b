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

from vididi_jax import config as configs
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate import retrieval
from vididi_jax.report import evidence, looks, page, summary
from vididi_jax.report.animation import Clips
from vididi_jax.report.summary import headlines
from vididi_jax.report.views import views_section
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
    assert 'dV its velocity (differences of neighbouring frames)' in text
    assert text.count('<circle') == 16 and 'by t-SNE of their features of V' in text
    assert not re.search(r'(src|href)="(?!data:)|https?://', text) and 'framework.projector' in text
    assert all(f'<section id="{name}">' in text for name in ('gallery', 'map', 'saliency'))
    clips = json.loads(re.search(r'id="clips">(.*?)</script>', text)[1])
    used = {int(number) for number in re.findall(r'data-clip="(\d+)"', text)}
    assert used == set(range(len(clips))) and len(set(clips)) == len(clips)


def test_a_run_on_one_of_several_splits_is_named_after_their_data_set(reported):
    """Which results tell that are of all its splits; without any it is the folder that holds them."""
    training, result = workdir_config(reported[0]), {'protocol': 'ucf101/split1+ucf101/split2', 'date': '2026'}
    training.data.dir = 'data/ucf_all/split1'
    for found, told in (({'a': result | {'data': 'data/ucf_all/split1,data/ucf_all/split2'}}, 'ucf101'),
                        ({'a': result | {'data': None}}, 'ucf_all/split1'), ({}, 'ucf_all/split1')):
        assert page.top(training, [], [], found)[0].endswith(f'pretrained on {told}</h1>')


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


@pytest.mark.parametrize(('change', 'wrong'), [
    ({'metrics': []}, r'damaged .its metrics: \[\]'), ({'counts': {'test': 5}}, "damaged .its counts: {'test': 5}"),
    ({}, 'not whole .it has no protocol')])
def test_a_result_that_cannot_be_shown_is_one_sentence(tmp_path, change, wrong):
    (tmp_path / 'eval' / 'tug').mkdir(parents=True)
    (tmp_path / 'eval' / 'tug' / 'results.json').write_text(json.dumps({
        'task': 'tug', 'metrics': {'V': {'won': 50.0}}, 'config': {'seed': 0}, 'commit': 'a', 'date': 'b', **change}))
    with pytest.raises(UserError, match=f'results.json is {wrong}.: evaluate {tmp_path} again'):
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
