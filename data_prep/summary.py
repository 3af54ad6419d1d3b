"""What a command has written, in lines."""

from .cut import is_shorter
from .plan import shown


def summary(rows: list[dict], out: str) -> None:
    """Say what was written, split by split, and what was quarantined and why."""
    for split in dict.fromkeys(row['split'] for row in rows):
        mine = [row for row in rows if row['split'] == split]
        count = {status: sum(row['status'] == status for row in mine) for status in ('ok', 'missing', 'broken')}
        frames = sum(row['frames'] or 0 for row in mine)
        short = sum(row['status'] == 'ok' and is_shorter(row['reason']) for row in mine)
        print(f'{split}: {count["ok"]:,} videos ({frames:,} frames) of {len(mine):,} listed; '
              f'{count["missing"]:,} missing, {count["broken"]:,} broken'
              + (f'; {short:,} shorter than listed' if short else ''))
    for row in rows:
        if row['reason'] and row['status'] != 'missing':
            print(shown(f'{row["status"]}: {row["id"]}: {row["reason"]}'))
    print(f'written to {shown(str(out))}')
