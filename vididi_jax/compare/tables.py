"""A comparison as text: a table for the eye, CSV of everything, Markdown, LaTeX."""

import csv
import io

from vididi_jax.compare.runs import untold_differences
from vididi_jax.compare.statistics import Figure

SIGNIFICANT = 0.05
LISTED = 5  # fields


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
    videos = list(dict.fromkeys(f'{number_of(figure)} of {figure.evaluation}' for figure in figures if figure.test))
    spread = any(figure.std is not None for figure in figures)
    text = 'Mean ± standard deviation over the runs, which differ in their seed.' if spread else 'One run a group.'
    if videos:
        other = f'the group with {against}' if against else 'the first group'
        text += (f' * differs from {other}, p < {SIGNIFICANT} of a two-sided paired bootstrap over the '
                 f'test videos ({", ".join(videos)}), each counted once; what is drawn anew are videos, not runs.')
        results = [run.results[figure.evaluation] for figure in figures for run in figure.group.runs]
        if any(len(result.get('folds', ())) > 1 for result in results):
            text += (' Figures are means over folds, and differences and stars are of all videos alike: where folds '
                     'are of unequal size the two need not agree.')
    return one_line(' '.join([text, *untold(figures), *measured(figures)]))


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
    return sorted({run.results[figure.evaluation]['commit'] for run in figure.group.runs})


def measured(figures: list[Figure]) -> list[str]:
    """What each evaluation is, which is the same in all runs, and by which commits."""
    found = {figure.evaluation: figure.group.runs[0].results[figure.evaluation] for figure in figures}
    of = sorted({commit for figure in figures for commit in commits(figure)})
    return [*(f'{name}: {result["protocol"]}, {counts(result)}; {result["clips_x_crops"]} views, {result["encoder"]} '
              'encoders.' for name, result in found.items()), f'Evaluated by commit {", ".join(of)}.']


def untold(figures: list[Figure]) -> list[str]:
    """For each two groups that are compared, in what they differ besides what their names say."""
    groups = {figure.group.name: figure.group for figure in figures}
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
