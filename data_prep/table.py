"""Lists of videos that are CSV files, read strictly: rows with the lines that they end in."""

import csv
from pathlib import Path

from vididi_jax.errors import UserError


def read_table(path: Path, advice: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a list, and its rows: the number of a row's last line, and column -> value.

    Args:
      path: of the file.
      advice: what to do if it cannot be read.

    Raises:
      UserError: it cannot be read; a column has two places; or quotes do not fit, which could swallow rows.
    """
    rows, begun = [], 1
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            reader = csv.DictReader(file, strict=True)
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
            begun = reader.line_num + 1
            for row in reader:
                rows.append((reader.line_num, row))
                begun = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f'{path}, the row that begins in line {begun}: {error}: put what holds a comma or a line end '
                        'into quotes, and write a quote in it as two.') from error
    except (OSError, ValueError) as error:
        raise UserError(f'the list {path} cannot be read ({error}): {advice}.') from error
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise UserError(f'{path} has {columns.count(twice[0])} columns {twice[0]!r}: leave one of them.')
    return columns, rows
