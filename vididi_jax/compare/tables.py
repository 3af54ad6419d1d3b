"""A comparison as text: a table for the eye, CSV of everything, Markdown, LaTeX."""

import csv
import io

from vididi_jax.compare.runs import Group, untold_differences
from vididi_jax.compare.statistics import Figure

SIGNIFICANT = 0.05
LISTED = 5  # fields, or groups
FEW = 30  # groups: of 9 the bootstrap calls 9 to 11 % of differences of nothing significant at 0.05, of 30 6 to 8 %
SEEN = 'test_videos_seen_in_pretraining'


def first_metrics(figures: list[Figure]) -> dict[str, list[Figure]]:
    """{evaluation: the figures of the first metric of each kind of feature}."""
    tables: dict[str, dict[tuple, Figure]] = {}
    for figure in figures:
        tables.setdefault(figure.evaluation, {}).setdefault((figure.group.name, figure.features), figure)
    return {evaluation: list(found.values()) for evaluation, found in tables.items()}


def one_line(text: str) -> str:
    """A text without the line ends of names in it, after which a comment or a row of a table would have ended."""
    return ' '.join(text.split())


def number(figure: Figure, plus_minus: str) -> str:
    spread = '' if figure.std is None else f'{plus_minus}{figure.std:.1f}'
    return f'{figure.mean:.1f}{spread}'


def is_significant(figure: Figure) -> bool:
    return figure.test is not None and figure.test.p < SIGNIFICANT


def wide(figures: list[Figure], cell) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of one evaluation: a row a group, a column a kind of feature."""
    kinds = list(dict.fromkeys(figure.features for figure in figures))
    fields = list(figures[0].group.values)
    rows: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        rows.setdefault(figure.group.name, {})[figure.features] = figure
    return (*fields, 'runs', *kinds), [
        (*map(one_line, found[kinds[0]].group.values.values()), str(len(found[kinds[0]].values)),
         *(cell(found[kind]) if kind in found else '' for kind in kinds)) for found in rows.values()]


def title(figures: list[Figure]) -> str:
    """What a table of one evaluation shows."""
    first = figures[0]
    chance = '' if first.chance is None else f', chance {first.chance:.1f}'
    return one_line(f'{first.evaluation}: {first.metric}{chance}')


def caption(figures: list[Figure], against: str) -> str:
    """What the cells mean."""
    parts, tests = [drawn(figures)], [figure for figure in figures if figure.test]
    if tests:
        other = f'the group with {against}' if against else 'the first group'
        videos = ', '.join(dict.fromkeys(f'{number_of(figure)} of {figure.evaluation}' for figure in tests))
        parts.append(f'* differs from {other}, p < {SIGNIFICANT} of a two-sided paired bootstrap over the test videos '
                     f'({videos}), each counted once; what is drawn anew are videos, not runs.')
        groups, results = groups_of(figures), [result for figure in figures for result in results_of(figure)]
        if any(len(groups[name].runs) == 1 for figure in tests for name in (figure.group.name, figure.against)):
            parts.append('A star of a single run says nothing of other seeds.')
        if few := dict.fromkeys(few_of(figure) for figure in tests if 1 < figure.test.groups < FEW):
            parts.append(f'With as few as {" or ".join(few)} the bootstrap finds differences too easily: take its '
                         'stars as hints.')
        if any(len(result.get('folds', ())) > 1 for result in results):
            parts.append('Figures are means over folds, and differences and stars are of all videos alike: where folds '
                         'are of unequal size the two need not agree.')
    return one_line(' '.join([*parts, *untold(figures), *seen(figures), *measured(figures)]))


def groups_of(figures: list[Figure]) -> dict[str, Group]:
    return {figure.group.name: figure.group for figure in figures}


def results_of(figure: Figure) -> list[dict]:
    """The results.json that a figure is of, one a run."""
    return [run.results[figure.evaluation] for run in figure.group.runs]


def by_group(told: dict[str, str]) -> str:
    """What is to be said of each group."""
    more = len(told) - LISTED
    return '; '.join([f'{name}: {text}' for name, text in told.items()][:LISTED]
                     + ([f'and of {more} more groups'] if more > 0 else []))


def drawn(figures: list[Figure]) -> str:
    """Over which runs the figures are means."""
    seeds = {name: ', '.join(map(str, sorted(run.config['seed'] for run in group.runs)))
             for name, group in groups_of(figures).items()}
    spread = any(figure.std is not None for figure in figures)
    text = 'Mean ± standard deviation over the runs, which differ in their seed' if spread else 'One run a group'
    if len(set(seeds.values())) == 1:
        return f'{text} (seed{"s" if spread else ""} {next(iter(seeds.values()))}).'
    return f'{text}. The groups have different seeds ({by_group(seeds)}), from which a difference may come, too.'


def few_of(figure: Figure) -> str:
    """How many groups, or videos without groups, were drawn from."""
    what = 'groups' if figure.test.groups < figure.test.videos else 'videos'
    return f'{figure.test.groups} {what} ({figure.evaluation})'


def seen(figures: list[Figure]) -> list[str]:
    """Of each evaluation, how many of its test videos were seen in pretraining, if any were."""
    found: dict[str, dict[str, list[dict]]] = {}
    for figure in figures:
        found.setdefault(figure.evaluation, {})[figure.group.name] = results_of(figure)
    return [text for name, groups in found.items() if (text := seen_in(name, groups))]


def seen_in(name: str, groups: dict[str, list[dict]]) -> str:
    """The same of one evaluation: results by group. Those of detection do not know."""
    known = {group: [result.get(SEEN) for result in results] for group, results in groups.items()}
    first, *others = [result for results in groups.values() for result in results]
    if all(SEEN not in result for result in (first, *others)) or set().union(*known.values()) == {0}:
        return ''
    if any(other.get(SEEN) != first.get(SEEN) for other in others):
        told = {group: ', '.join('unknown' if n is None else f'{n:,}' for n in dict.fromkeys(numbers))
                for group, numbers in known.items()}
        return (f'The runs have seen different numbers of the test videos of {name}, without labels, in pretraining '
                f'({by_group(told)}).')
    if first.get(SEEN) is None:
        return f'Whether test videos of {name} were seen in pretraining is not known.'
    folds = first.get('folds', ())
    apart = len(folds) == 1 or 'all' in first['counts']  # videos of several lists may be the same
    total = sum(fold.get('test_videos', 0) for fold in folds) if apart else 0
    return (f'{first[SEEN]:,}{f" of {total:,}" if total else ""} test videos of {name} were seen, without labels, in '
            'pretraining.')


def number_of(figure: Figure) -> str:
    """Of the videos that a test is over, and of their groups where those are fewer."""
    videos, groups = figure.test.videos, figure.test.groups
    return f'{videos:,}' + (f' in {groups:,} groups, which are drawn as a whole,' if groups < videos else '')


def counts(result: dict) -> str:
    """How many videos an evaluation is of."""
    return '; '.join(f'{side}: {count["videos"]:,} of {count["listed"]:,} listed videos'
                     for side, count in result['counts'].items())


def commits(figure: Figure) -> list[str]:
    """Of the results of a figure."""
    return sorted({result['commit'] for result in results_of(figure)})


def measured(figures: list[Figure]) -> list[str]:
    """What each evaluation is, which is the same in all runs, and by which commits."""
    found = {figure.evaluation: figure.group.runs[0].results[figure.evaluation] for figure in figures}
    return [*(f'{name}: {result["protocol"]}, {counts(result)}; {result["clips_x_crops"]} views, {result["encoder"]} '
              'encoders.' for name, result in found.items()), made(figures)]


def made(figures: list[Figure]) -> str:
    """By which commits, as far as results know who trained."""
    evaluated = ', '.join(sorted({commit for figure in figures for commit in commits(figure)}))
    trained = ', '.join(sorted({commit for figure in figures for result in results_of(figure)
                                for commit in result.get('training_commits', ())}))
    if trained == evaluated:
        return f'Trained and evaluated by commit {evaluated}.'
    return f'Trained by commit {trained}, evaluated by commit {evaluated}.' if trained else (
        f'Evaluated by commit {evaluated}.')


def untold(figures: list[Figure]) -> list[str]:
    """For each two groups that are compared, in what they differ besides what their names say."""
    groups = groups_of(figures)
    pairs = dict.fromkeys((figure.group.name, figure.against) for figure in figures if figure.test)
    found = {(name, other): untold_differences(groups[name], groups[other]) for name, other in pairs}
    return [f'{name} differs from {other} also in {", ".join(fields[:LISTED])}'
            + (f' and {len(fields) - LISTED} more fields.' if len(fields) > LISTED else '.')
            for (name, other), fields in found.items() if fields]


def plain(header: tuple, rows: list[tuple]) -> str:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return '\n'.join('  '.join(f'{word:<{width}}' for word, width in zip(line, widths, strict=True)).rstrip()
                     for line in (header, *rows))


def text(figures: list[Figure]) -> str:
    """Tables for the terminal."""
    return '\n\n'.join(
        f'{title(found)}\n' + plain(*wide(found, text_cell))
        for found in first_metrics(figures).values())


def markdown(figures: list[Figure], against: str) -> str:
    """A table an evaluation."""
    parts = []
    for found in first_metrics(figures).values():
        header, rows = wide(found, text_cell)
        lines = [header, ('---',) * len(header), *rows]
        parts.append(f'### {title(found)}\n\n' + '\n'.join(map(markdown_line, lines)))
    return '\n\n'.join([*parts, caption(figures, against)]).replace(' *', r' \*') + '\n'


def markdown_line(cells: tuple[str, ...]) -> str:
    return '| ' + ' | '.join(cell.replace('|', r'\|') for cell in cells) + ' |'


def escape(word: str) -> str:
    """Text for LaTeX."""
    special = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '±': r'$\pm$',
               '<': '$<$', '>': '$>$', '|': '$|$', '[': '{[}',  # which after a line's end would be its option
               **{c: f'\\{c}' for c in '&%$#_{}'}}
    return ''.join(special.get(letter, letter) for letter in word)


def latex_cell(figure: Figure) -> str:
    star = '^{*}' if is_significant(figure) else ''
    return '$' + number(figure, r' \pm ') + star + '$'


def text_cell(figure: Figure) -> str:
    return number(figure, ' ± ') + (' *' if is_significant(figure) else '')


def latex(figures: list[Figure], against: str) -> str:
    r"""A `tabular` an evaluation, with the rules of the package booktabs."""
    parts = []
    for found in first_metrics(figures).values():
        header, rows = wide(found, latex_cell)
        texts = len(found[0].group.values)
        lines = [' & '.join([*map(escape, row[:texts]), *row[texts:]]) + r' \\' for row in rows]
        parts.append('\n'.join([
            f'% {title(found)}', rf'\begin{{tabular}}{{{"l" * texts}r{"r" * (len(header) - texts - 1)}}}', r'\toprule',
            ' & '.join(map(escape, header)) + r' \\', r'\midrule', *lines, r'\bottomrule', r'\end{tabular}']))
    return '\n\n'.join([*parts, f'% {caption(figures, against)}']) + '\n'


def as_csv(figures: list[Figure]) -> str:
    """A line a group, evaluation, kind of feature and metric."""
    fields = list(figures[0].group.values)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow((*fields, 'evaluation', 'features', 'metric', 'runs', 'seeds', 'values', 'mean', 'std', 'chance',
                     'against', 'difference', 'low', 'high', 'p', 'videos', 'groups', 'protocol', 'counts', 'views',
                     'encoder', 'commits'))
    for figure in figures:
        result = figure.group.runs[0].results[figure.evaluation]
        writer.writerow((
            *figure.group.values.values(), figure.evaluation, figure.features, figure.metric, len(figure.values),
            ' '.join(str(run.config['seed']) for run in figure.group.runs), ' '.join(map(str, figure.values)),
            figure.mean, figure.std, figure.chance, figure.against, *(figure.test or ('',) * 6),  # None becomes ''
            result['protocol'], counts(result), result['clips_x_crops'], result['encoder'], ' '.join(commits(figure))))
    return file.getvalue()
