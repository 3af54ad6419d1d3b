"""The task 'compare': a table over runs, printed, and written as CSV, Markdown, LaTeX and a page."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from vididi_jax import pictures
from vididi_jax.compare import tables
from vididi_jax.compare.runs import Group, check_trained, common_evaluations, find_workdirs, group_runs, read_run
from vididi_jax.compare.statistics import CONFIDENCE, Figure, compare
from vididi_jax.fields import check_fields
from vididi_jax.files import write_whole
from vididi_jax.provenance import commit
from vididi_jax.report import html
from vididi_jax.train.processes import on_process_zero


def difference_rows(figures: list[Figure]) -> list[tuple]:
    """A line for each comparison of two groups."""
    return [(f.evaluation, f.features, f.group.name, f.against, f'{f.test.difference:+.1f}',
             f'{f.test.low:+.1f} to {f.test.high:+.1f}', f'{f.test.p:.2g}', f'{f.test.videos:,}', f'{f.test.groups:,}')
            for f in figures if f.test]


def evaluation_rows(groups: list[Group], evaluations: list[str]) -> Iterator[tuple]:
    """What each evaluation is, which is the same in all runs."""
    for name in evaluations:
        result = groups[0].runs[0].results[name]
        yield name, result['protocol'], tables.counts(result), result['clips_x_crops'], result['encoder']


def write_all(out: Path, groups: list[Group], evaluations: list[str], figures: list[Figure], config) -> None:
    """compare.csv, compare.md, compare.tex and index.html in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / 'compare.csv', tables.as_csv(figures))
    write_whole(out / 'compare.md', tables.markdown(figures, config.against))
    write_whole(out / 'compare.tex', tables.latex(figures, config.against))
    runs = sum(len(group.runs) for group in groups)
    parts = [f'<h1>{runs} runs compared</h1>']
    for name, found in tables.first_metrics(figures).items():
        header, rows = tables.wide(found, tables.text_cell)
        parts += [f'<h2>{escape(name)}</h2>', html.picture(
            pictures.group_bars(found), f'{tables.title(found)}. Bars are means, points are runs, lines through them '
            'their standard deviation; the dotted line is chance.'), html.table(rows, header)]
    parts += [html.paragraph(tables.caption(figures, config.against)), html.paragraph(html.NOTATION)]
    if differences := difference_rows(figures):
        parts += ['<h2>Differences</h2>', html.table(differences, (
            'evaluation', 'features', 'group', 'against', 'difference', f'{CONFIDENCE:.0%} interval', 'p', 'videos',
        'groups'))]
    parts += ['<h2>What was compared</h2>', html.table(list(evaluation_rows(groups, evaluations)), (
        'evaluation', 'protocol', 'videos', 'views', 'encoder')), html.table(
            [(group.name, run.workdir, run.config['seed'], ', '.join(sorted({
                run.results[name]['commit'] for name in evaluations}))) for group in groups for run in group.runs],
            ('group', 'workdir', 'seed', 'commit of the results'))]
    parts.append(html.paragraph(f'{config.samples:,} bootstrap samples, seed {config.seed}; compared by commit '
                                f'{commit()}.'))
    html.write_page(out / 'index.html', f'{runs} runs compared', parts)


@on_process_zero
def run(config, workdir: str) -> list[Figure]:
    """Compare `config.runs`, print the tables and write them below `workdir`."""
    check_fields(config)
    workdirs, other = find_workdirs(config.runs)
    runs = [read_run(path) for path in workdirs]
    groups = group_runs(runs)
    evaluations, left_out = common_evaluations(runs, config.evaluations)
    check_trained(groups, evaluations)
    figures = compare(groups, evaluations, against=config.against, samples=config.samples, seed=config.seed)
    write_all(Path(workdir), groups, evaluations, figures, config)
    print(f'{len(runs)} runs in {len(groups)} group(s)'
          + (f'; {other} other match(es) are no workdirs' if other else '')
          + (f'; not all runs have: {", ".join(left_out)}' if left_out else ''))
    print(f'\n{tables.text(figures)}\n\n{tables.caption(figures, config.against)}')
    print(f'written to {workdir}: compare.csv, compare.md, compare.tex, index.html')
    return figures
