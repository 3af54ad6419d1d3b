"""Comparison of runs against scipy and plain resampling, through the command's own task."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from vididi_jax import config as configs
from vididi_jax.compare import task
from vididi_jax.compare.runs import telling_fields
from vididi_jax.compare.statistics import paired_bootstrap
from vididi_jax.errors import UserError

VIDEOS = 200
SHARE = {'base': 0.3, 'vididi': 0.55}


@pytest.fixture
def runs(root, tmp_path):
    """{(loss, schedule, seed): (workdir, hits (VIDEOS,))}: two losses, two schedules, three seeds, made up."""
    found = {}
    for number, (loss, schedule, seed) in enumerate(
            (loss, schedule, seed) for loss in ('vicreg', 'byol') for schedule in SHARE for seed in range(3)):
        file = 'motion_vicreg' if loss == 'vicreg' else 'motion_byol'
        config = configs.load_config(f'{root}/configs/{file}.py')
        config.schedule, config.seed, config.data.workers = schedule, seed, number
        workdir = tmp_path / 'runs' / f'{loss}_{schedule}_{seed}'
        hits = np.random.default_rng(number).random(VIDEOS) < SHARE[schedule]
        write(workdir, config, hits)
        found[loss, schedule, seed] = workdir, hits
    (tmp_path / 'runs' / 'notes').mkdir()
    return found


def write(workdir, run, hits, name='retrieval', **changes):
    """A run as training and evaluation leave it, as far as a comparison reads it."""
    folder = workdir / 'eval' / name
    folder.mkdir(parents=True)
    (workdir / 'config.json').write_text(json.dumps(configs.to_dict(run)))
    share = 100 * float(hits.mean())
    counts = {'videos': len(hits), 'listed': len(hits)}
    (folder / 'results.json').write_text(json.dumps({
        'task': 'retrieval', 'protocol': 'motion/test', 'clips_x_crops': '3 x 1', 'encoder': 'trained', 'chance': 12.5,
        'counts': {'train': counts, 'test': counts}, 'commit': 'abc',
        'metrics': {'V': {'R@1': share, 'R@5': 90.0 + run.seed}}, **changes}))
    with (folder / 'videos.csv').open('w', newline='') as file:
        csv.writer(file).writerows([('fold', 'id', 'group', 'label', 'V'), *(
            ('test', f'video{i}', '', 'up', int(hit)) for i, hit in enumerate(hits))])


def compare(root, tmp_path, **changes):
    config = configs.load_config(f'{root}/configs/compare.py:smoke')
    config.runs = f'{tmp_path}/runs/*'
    config.update(changes)
    task.run(config, str(tmp_path / 'out'))
    return list(csv.DictReader((tmp_path / 'out' / 'compare.csv').open()))


def test_means_deviations_and_significance_are_those_of_scipy(root, runs, tmp_path, capsys):
    rows = compare(root, tmp_path, against='schedule=base', samples=10_000)
    assert [(row['framework.loss'], row['schedule'], row['metric']) for row in rows] == [
        (loss, schedule, metric) for loss in ('byol', 'vicreg') for schedule in SHARE for metric in ('R@1', 'R@5')]
    for row in rows[::2]:
        group = row['framework.loss'], row['schedule']
        hits = np.array([runs[*group, seed][1] for seed in range(3)])
        assert float(row['mean']) == pytest.approx(stats.tmean(100 * hits.mean(1)))
        assert float(row['std']) == pytest.approx(stats.tstd(100 * hits.mean(1)))
        assert row['runs'] == '3' and row['seeds'] == '0 1 2'
        if group[1] == 'base':
            assert row['against'] == row['p'] == ''
            continue
        base = np.array([runs[group[0], 'base', seed][1] for seed in range(3)])
        difference = 100 * (hits.mean(0) - base.mean(0))
        assert row['against'] == f'framework.loss={group[0]}, schedule=base' and row['videos'] == str(VIDEOS)
        assert float(row['difference']) == pytest.approx(difference.mean())
        t = stats.ttest_1samp(difference, 0).confidence_interval()
        # 10,000 samples of some 200 values: the intervals are some 10 points wide, and their ends differ by 0.2.
        np.testing.assert_allclose((float(row['low']), float(row['high'])), t, atol=1)
        assert float(row['p']) == pytest.approx(2 / 10_001)
    assert {(row['metric'], row['chance']) for row in rows} == {('R@1', '12.5'), ('R@5', '')}
    assert '1 other match(es) are no workdirs' in capsys.readouterr().out
    out = tmp_path / 'out'
    first = rows[2]
    for file, sign in (('compare.md', ' ± '), ('compare.tex', r' \pm '), ('index.html', ' ± ')):
        assert f'{float(first["mean"]):.1f}{sign}{float(first["std"]):.1f}' in (out / file).read_text()
    assert (out / 'compare.tex').read_text().count(r'\begin{tabular}') == 1
    text = (out / 'compare.md').read_text()
    assert 'which differ in their seed (seeds 0, 1, 2). ' in text and 'not runs. retrieval: motion/test' in text


def test_p_is_that_of_plain_resampling_and_of_a_t_test():
    rng = np.random.default_rng(0)
    difference = 0.14 + stats.zscore(rng.normal(size=150))
    found = paired_bootstrap(difference, range(150), 10_000, 0)
    means = difference[rng.integers(0, 150, (10_000, 150))].mean(1)
    plain = 2 * (1 + min((means <= 0).sum(), (means >= 0).sum())) / 10_001
    assert 0.01 < plain < 0.5  # or the tolerances say nothing
    # Of 10,000 samples a share of 0.05 has a standard error of 0.0022, and p has twice that, of each of the two.
    assert found.p == pytest.approx(plain, abs=0.02)
    assert found.p == pytest.approx(stats.ttest_1samp(difference, 0).pvalue, abs=0.03)
    np.testing.assert_allclose((found.low, found.high), np.percentile(means, (2.5, 97.5)), atol=0.02)
    assert paired_bootstrap(np.zeros(20), range(20), 100, 0).p == 1
    alone = paired_bootstrap(difference, ['one'] * 150, 100, 0)  # of one group nothing can be told
    assert alone.p == 1 and np.isnan([alone.low, alone.high]).all() and alone.difference == difference.mean()


def test_videos_of_a_group_are_drawn_together():
    """Groups of different sizes, in which all videos agree: as many facts as groups, and not as videos."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 12, 40)
    difference, groups = np.repeat(0.25 + rng.normal(size=40), sizes), np.repeat(np.arange(40), sizes)
    found = paired_bootstrap(difference, groups, 10_000, 0)
    assert (found.videos, found.groups) == (len(difference), 40)
    drawn = rng.integers(0, 40, (10_000, 40))
    means = np.array([difference[np.concatenate([np.flatnonzero(groups == one) for one in sample])].mean()
                      for sample in drawn[:2000]])
    # Of 2,000 samples the ends of the interval have a standard error of some 0.02, and p, near 0.1, twice 0.005.
    np.testing.assert_allclose((found.low, found.high), np.percentile(means, (2.5, 97.5)), atol=0.06)
    assert found.p == pytest.approx(2 * min((means <= 0).mean(), (means >= 0).mean()), abs=0.04)
    alone = paired_bootstrap(difference, range(len(difference)), 10_000, 0)
    assert found.high - found.low > 1.5 * (alone.high - alone.low)


def test_means_of_thirds_that_are_equal_count_as_equal():
    """Three seeds give differences of 100 k / 3, whose sums are 0 but for rounding."""
    whole = np.random.default_rng(3).integers(-2, 4, 12)
    assert paired_bootstrap(100 * whole / 3, range(12), 2000, 0).p == paired_bootstrap(whole, range(12), 2000, 0).p


def test_other_settings_do_not_compare_and_one_video_is_no_sample(root, tmp_path):
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    path = {}
    for name, schedule, epochs in (('a', 'base', 20), ('b', 'vididi', 120)):
        config.schedule = schedule
        write(tmp_path / 'runs' / name, config, np.ones(1))
        path[name] = tmp_path / 'runs' / name / 'eval' / 'retrieval' / 'results.json'
        path[name].write_text(json.dumps(json.loads(path[name].read_text()) | {
            'config': {'seed': epochs, 'finetune': {'epochs': epochs}}}))
    with pytest.raises(UserError, match='do not compare: their config.finetune.epochs differ .20 and 120'):
        compare(root, tmp_path)
    for name, share in (('a', 0.171), ('b', 0.203)):
        path[name].write_text(json.dumps(json.loads(path[name].read_text()) | {
            'config': {}, 'metrics': {'V': {'frame_mAP': share}}}))
    rows = compare(root, tmp_path)
    assert [row['p'] for row in rows] == ['', ''] and [float(row['mean']) for row in rows] == [17.1, 20.3]
    assert '17.1' in (tmp_path / 'out' / 'compare.md').read_text()


def test_without_a_baseline_groups_are_compared_with_the_first(root, runs, tmp_path):
    rows = compare(root, tmp_path)
    assert {row['against'] for row in rows if row['metric'] == 'R@1'} == {'', 'framework.loss=byol, schedule=base'}


def test_what_groups_differ_in_besides_their_names_is_told(root, tmp_path):
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    for schedule, epochs in (('base', 20), ('vididi', 40)):
        config.schedule, config.epochs, config.data.workers = schedule, epochs, epochs
        write(tmp_path / 'runs' / schedule, config, np.arange(9) % 2)
    assert [row['schedule'] for row in compare(root, tmp_path)] == ['base', 'base', 'vididi', 'vididi']
    for file in ('compare.md', 'compare.tex', 'index.html'):
        text = (tmp_path / 'out' / file).read_text()
        assert 'schedule=vididi differs from schedule=base also in epochs 40 for 20.' in text


def test_schedules_that_are_spelled_out_are_compared_and_compile(root, tmp_path):
    """A row of a LaTeX table that begins with a bracket is the option of the line above."""
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    for number, schedule in enumerate(('base', ((1, 1), (0, 2)), {'phases': ((0, 2),), 'coin': True})):
        with config.unlocked():
            config.schedule = schedule
        write(tmp_path / 'runs' / str(number), config, np.arange(9) % (number + 2) == 0)
    rows = compare(root, tmp_path, against='schedule=base')
    assert [row['schedule'] for row in rows[::2]] == ['base', '[[1, 1], [0, 2]]',
                                                      '{"coin": true, "phases": [[0, 2]]}']
    assert all(row['against'] == 'schedule=base' for row in rows[2::2])
    lines = (tmp_path / 'out' / 'compare.tex').read_text().splitlines()
    assert not [line for line in lines if line.startswith('[')] and sum(line.startswith('{[}') for line in lines) == 1


def test_only_what_tells_groups_apart_names_them():
    a = {'framework.loss': 'vicreg', 'seed': 0, 'data.workers': 1, 'optimizer.base_rate': 1.0, 'epochs': 3}
    b = {**a, 'seed': 1, 'data.workers': 2}
    c = {**a, 'framework.loss': 'byol', 'optimizer.base_rate': 2.0}
    assert telling_fields([a, b]) == ()
    assert telling_fields([a, b, c]) == ('framework.loss',)
    assert telling_fields([a, b, c, {**c, 'epochs': 4}]) == ('framework.loss', 'epochs')
    assert telling_fields([a, {**a, 'data.dir': 'other'}]) == ('data.dir',)


def test_what_does_not_compare_is_refused(root, runs, tmp_path):
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    config.epochs, hits = 1, np.ones(VIDEOS)
    extra = tmp_path / 'runs' / 'zz'

    def refused(match, **changes):
        with pytest.raises(UserError, match=match):
            compare(root, tmp_path, **changes)

    refused('config.runs is empty', runs='')
    refused('no folder that', runs=f'{tmp_path}/nothing*')
    refused('no config.json', runs=f'{tmp_path}/runs/notes')
    refused('no group of runs is that', against='schedule=nope')
    refused("no evaluation 'linear'", evaluations='linear')
    write(extra, config, hits, clips_x_crops='10 x 1')
    refused('clips_x_crops differ', against='schedule=base')
    (extra / 'eval' / 'retrieval').rename(extra / 'eval' / 'other')
    refused('no evaluation in common')
    write(tmp_path / 'other' / 'a', config, hits)
    write(tmp_path / 'other' / 'b', config, hits)
    refused('same seed 0', runs=f'{tmp_path}/other/*')
    write(tmp_path / 'copied', config, hits, training_config={**configs.to_dict(config), 'seed': 7})
    refused('is of a run with seed=7, and .*copied is one with 0: evaluate it again', runs=f'{tmp_path}/copied')
    config.seed = 1
    write(tmp_path / 'more' / 'a', config, hits)
    write(tmp_path / 'more' / 'b', configs.load_config(f'{root}/configs/motion_vicreg.py'), hits[:-1],
          counts={'train': {'videos': VIDEOS, 'listed': VIDEOS}, 'test': {'videos': VIDEOS, 'listed': VIDEOS}})
    refused('not evaluated on the same videos', runs=f'{tmp_path}/more/*')
    latest = {'config': {'eval': {'checkpoint': 'latest'}}, 'checkpoint_step': 12}
    write(tmp_path / 'trained_on' / 'a', config, hits, **latest, training_config={'epochs': 2})
    refused("'retrieval' of .* is of a run of 2 epochs, which goes to 1 by now", runs=f'{tmp_path}/trained_on/*')
    write(tmp_path / 'trained_on' / 'a', config, hits, name='tug', **latest, training_config={'epochs': 1})
    for seed, step in ((0, 12), (1, 24)):
        config.seed = seed
        write(tmp_path / 'stopped' / str(seed), config, hits, **latest | {'checkpoint_step': step},
              training_config={'epochs': 1})
    refused('is of step 12 and that of .* of step 24', runs=f'{tmp_path}/stopped/*')
    for name, row, told in (('later', {'step': 48, 'epoch': 0}, 'of step 12, and the run, .* is at step 48'),
                            ('half', {'step': 12, 'epoch': 0}, 'goes to 2 epochs, is at step 12, in epoch 1')):
        config.epochs = 1 if name == 'later' else 2
        write(tmp_path / name / 'a', config, hits, **latest, training_config={'epochs': config.epochs})
        (tmp_path / name / 'a' / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
        refused(told, runs=f'{tmp_path}/{name}/*')
    config.epochs = 1
    for seed, data in ((0, 'a'), (1, 'b')):
        config.seed = seed
        write(tmp_path / 'data' / str(seed), config, hits, fingerprint=data)
    refused("their fingerprint differ .'a' and 'b'", runs=f'{tmp_path}/data/*')
    assert not (tmp_path / 'out').exists()
    compare(root, tmp_path, runs=f'{tmp_path}/trained_on/*', evaluations='tug')  # the stale one is not asked for


def two_runs(root, tmp_path):
    """Runs 'a' (base) and 'b' (vididi): 40 videos, of which the second is right of more; group i // 10 of each."""
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    for name, schedule, hits in (('a', 'base', np.arange(40) % 4 == 0), ('b', 'vididi', np.arange(40) % 4 < 3)):
        config.schedule = schedule
        write(tmp_path / 'runs' / name, config, hits)


def test_videos_of_a_group_are_drawn_together_in_a_comparison(root, tmp_path):
    two_runs(root, tmp_path)
    for path in (tmp_path / 'runs').rglob('videos.csv'):
        rows = list(csv.reader(path.open()))
        for number, row in enumerate(rows[1:]):
            row[2] = f'scene{number // 10}'
        with path.open('w', newline='') as file:
            csv.writer(file).writerows(rows)
    row = compare(root, tmp_path)[2]
    assert (row['videos'], row['groups']) == ('40', '4')
    text = (tmp_path / 'out' / 'compare.md').read_text()
    assert '40 in 4 groups, which are drawn as a whole' in text and 'One run a group (seed 0). ' in text
    assert ('not runs. A star of a single run says nothing of other seeds. With as few as 4 groups (retrieval) the '
            'bootstrap finds differences too easily: take its stars as hints. ') in text


@pytest.mark.parametrize(('seen', 'told'), [
    ((0, 0), 'not runs. A star of a single run says nothing of other seeds. retrieval: motion/test, '),
    ((40, 40), 'seeds. 40 of 40 test videos of retrieval were seen, without labels, in pretraining. retrieval: '),
    ((None, None), 'seeds. Whether test videos of retrieval were seen in pretraining is not known. retrieval: '),
    ((None, 40), 'seeds. The runs have seen different numbers of the test videos of retrieval, without labels, in '
                 'pretraining (schedule=base: unknown; schedule=vididi: 40). retrieval: ')])
def test_a_caption_says_what_was_seen_before_and_by_which_commits_it_was_made(root, tmp_path, seen, told):
    two_runs(root, tmp_path)
    for name, number in zip('ab', seen, strict=True):
        path = tmp_path / 'runs' / name / 'eval' / 'retrieval' / 'results.json'
        path.write_text(json.dumps(json.loads(path.read_text()) | {
            'test_videos_seen_in_pretraining': number, 'folds': [{'test_videos': 40}], 'training_commits': [name]}))
    compare(root, tmp_path)
    text = (tmp_path / 'out' / 'compare.md').read_text()
    assert told in text and text.endswith('Trained by commit a, b, evaluated by commit abc.\n')


def test_groups_of_other_seeds_are_told(root, tmp_path):
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    for config.seed, config.schedule in enumerate(('base', 'vididi')):
        write(tmp_path / 'runs' / config.schedule, config, np.arange(9) % 2)
    compare(root, tmp_path)
    text = (tmp_path / 'out' / 'compare.md').read_text()
    assert ('One run a group. The groups have different seeds (schedule=base: 0; schedule=vididi: 1), from which a '
            'difference may come, too. ') in text
    assert 'With as few as 9 videos (retrieval) the bootstrap ' in text


def test_a_star_is_a_significant_difference(root, tmp_path):
    two_runs(root, tmp_path)
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    config.schedule = 'first_order'
    write(tmp_path / 'runs' / 'c', config, np.arange(40) % 4 == 1)  # as good as the first, on other videos
    config.schedule = 'random'
    write(tmp_path / 'runs' / 'd', config, np.isin(np.arange(40), (1, 2, 3, 5, 6, *range(8, 40, 4))))  # 5 won, 2 lost
    assert 0.05 < float(compare(root, tmp_path)[6]['p']) < 0.5
    lines = (tmp_path / 'out' / 'compare.md').read_text().splitlines()
    assert [line for line in lines if line.startswith('| ')][2:] == [
        '| base | 1 | 25.0 |', r'| vididi | 1 | 75.0 \* |', '| first_order | 1 | 25.0 |',
        '| random | 1 | 32.5 |']
    assert (tmp_path / 'out' / 'compare.tex').read_text().count('$75.0^{*}$') == 1


@pytest.mark.parametrize(('key', 'value'), [
    ('encoder', 'untrained'), ('protocol', 'motion/grouped'), ('task', 'linear'),
    ('counts', {side: {'videos': 39, 'listed': 40} for side in ('train', 'test')})])
def test_what_was_measured_otherwise_does_not_compare(root, tmp_path, key, value):
    two_runs(root, tmp_path)
    path = tmp_path / 'runs' / 'b' / 'eval' / 'retrieval' / 'results.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match=f'do not compare: their {key} differ'):
        compare(root, tmp_path)


def test_one_run_from_scratch_is_not_counted_as_two(root, tmp_path):
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    for config.seed, seed in ((0, 7), (1, 8), (2, 7)):
        write(tmp_path / 'runs' / str(config.seed), config, np.ones(9), encoder='untrained',
              config={'seed': seed, 'finetune': {'epochs': 1}})
    with pytest.raises(UserError, match='trained from scratch with one seed, 7, so it is one run'):
        compare(root, tmp_path)


def test_groups_that_were_asked_other_videos_or_by_an_older_version_do_not_compare(root, tmp_path):
    two_runs(root, tmp_path)
    path = tmp_path / 'runs' / 'b' / 'eval' / 'retrieval' / 'videos.csv'
    text = path.read_text()
    for old, new, message in (('video7,', 'another,', 'runs/b and .*runs/a were not evaluated on the same videos'),
                              ('id,group,', 'id,place,', 'older version, without groups: evaluate .*runs/b again')):
        path.write_text(text.replace(old, new))
        with pytest.raises(UserError, match=message):
            compare(root, tmp_path)


def test_a_run_that_is_named_twice_is_one_and_a_table_of_evaluations_is_none(root, tmp_path):
    two_runs(root, tmp_path)
    for path in list((tmp_path / 'runs').glob('*/eval/retrieval')):
        (path.parent / 'all').mkdir()
        (path.parent / 'all' / 'results.json').write_text('{"task": "eval_all"}')
    rows = compare(root, tmp_path, runs=f'{tmp_path}/runs/a,{tmp_path}/runs/*')
    assert [(row['evaluation'], row['runs']) for row in rows] == 4 * [('retrieval', '1')]


def test_a_run_that_went_on_is_compared_by_the_checkpoint_that_was_asked_for(root, tmp_path):
    """Its best or a step, which a longer run has too; or its last, where it is at its end."""
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    config.epochs = 4
    for checkpoint, epochs in (('best', 2), ('12', 2), ('latest', 4)):
        folder = tmp_path / checkpoint / 'a'
        write(folder, config, np.ones(9), config={'eval': {'checkpoint': checkpoint}}, checkpoint_step=6 * epochs,
              training_config={'epochs': epochs})
        (folder / 'metrics.jsonl').write_text('{"step": 24, "epoch": 3}\n')
        assert len(compare(root, tmp_path, runs=str(folder))) == 2


def test_the_page_names_the_commits_of_what_is_compared(root, tmp_path):
    """In one cell, and not those of other evaluations, which may have none."""
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    for name, changes in (('retrieval', {}), ('other', {'commit': 'def'}), ('older', {'commit': None})):
        write(tmp_path / 'runs' / 'a', config, np.arange(9) % 2, name, **changes)
    older = tmp_path / 'runs' / 'a' / 'eval' / 'older' / 'results.json'
    older.write_text(older.read_text().replace('"commit": null, ', ''))
    compare(root, tmp_path, evaluations='retrieval,other')
    text = (tmp_path / 'out' / 'index.html').read_text()
    assert '<td>0</td><td>abc, def</td></tr>' in text and 'dV its velocity (differences of' in text


def test_names_stay_in_their_place_in_every_table(root, tmp_path):
    """On the page as text, in LaTeX in a comment or escaped, in Markdown in one cell; in CSV as they are."""
    config, name = configs.load_config(f'{root}/configs/motion_vicreg.py'), '<img src=x>\n\\input{x}'
    for number, place in enumerate(('a|b_c \\input{y}', 'd')):
        config.data.dir = place
        write(tmp_path / 'runs' / str(number), config, np.arange(9) % 2, name)
    assert [row['data.dir'] for row in compare(root, tmp_path)][::2] == ['a|b_c \\input{y}', 'd']
    page, markdown, latex = ((tmp_path / 'out' / file).read_text()
                             for file in ('index.html', 'compare.md', 'compare.tex'))
    assert '<img src=x>' not in page and '<h2>&lt;img src=x&gt;' in page
    assert [line for line in markdown.splitlines() if line.startswith('| a')] == [r'| a\|b_c \input{y} | 1 | 44.4 |']
    lines = latex.splitlines()
    assert r'a$|$b\_c \textbackslash{}input\{y\} & 1 & $44.4$ \\' in lines
    assert all(line.startswith('% ') for line in lines if r'\input' in line)
