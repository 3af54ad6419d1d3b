"""What the fields of configs may hold: every field of every config has a rule, and the rules hold."""

import ast
import math
import re

import pytest
from ml_collections import ConfigDict

from configs import default, motion_vicreg
from tests.test_configs import files, variants
from vididi_jax.config import load_config
from vididi_jax.errors import UserError
from vididi_jax.fields import RULES, check_fields, rule_of, values_of

MAY_BE_EMPTY = {'framework.predictor', 'augment.per_frame', 'optimizer.milestones'}
ANY_TEXT = {'task', 'init_from', 'data.dir', 'runs', 'beside', 'checkpoint', 'videos', 'query'}
SPLITS = {'data.split', 'eval.train', 'eval.test', 'eval.split'}
NO_NUMBERS = (math.nan, math.inf, -math.inf, '1', 'nonsense', None, True, (), (1,), [1.0], {'a': 1})


@pytest.fixture(scope='module')
def fields(root):
    """{full name without its part: value} of every field of every config and variant."""
    names = [f'{path}{variant}' for path in files(root) for variant in ('', *(f':{v}' for v in variants(path)))]
    return {re.sub(r'^parts\.\w+\.', '', name): value for file in names for name, value in values_of(load_config(file))}


def wrong_values(name, value):
    """What a field of such a value can never hold."""
    if name == 'schedule':
        return [None]
    if isinstance(value, bool):
        return [None, 1, 0.0, 'True', ()]
    if isinstance(value, int):
        return [-10**9, 10**12, value + 0.5, float(value), *NO_NUMBERS]
    if isinstance(value, float):
        return [-1e9, 1e12, -1, 10**400, *NO_NUMBERS]
    if isinstance(value, str):
        names = [] if name in ANY_TEXT else ['nonsense/', '../x', '/absolute/x', 'x' * 1000]
        dots = [] if name in ANY_TEXT | SPLITS else ['.', '..']
        return [None, 3, ('a',), True, 'nul\0', 'a\nb', 'x' * 5000, *names, *dots]
    kind = value[0] if value else 1
    entries = [None, (), math.nan, math.inf, -10**9, 10**12, 'nonsense', True, '']
    return [None, 3, 'nonsense', value * 1000 or (kind,) * 1000, *((entry, *value[1:]) for entry in entries),
            *([] if name in MAY_BE_EMPTY else [()])]


def test_every_field_has_a_rule_and_every_rule_a_field(root, fields):
    assert set(fields) == set(RULES)
    for path in files(root):
        for variant in ('', *variants(path)):
            check_fields(load_config(f'{path}:{variant}'))


def test_no_field_takes_what_it_cannot_mean(fields):
    for name, value in fields.items():
        for wrong in wrong_values(name, value):
            with pytest.raises(UserError, match=rf'^config\.{name} is .+: it must be .+\.$') as error:
                check_fields(nested(name, wrong))
            assert len(str(error.value)) < 300 and '\n' not in str(error.value)


def nested(name, value):
    for part in reversed(name.split('.')):
        value = {part: value}
    return value


def test_ranges_are_those_that_messages_tell(fields):
    numbers = [name for name, value in fields.items() if isinstance(value, int | float) and not isinstance(value, bool)]
    assert len(numbers) > 40
    for name in numbers:
        rule = RULES[name]
        low, below, high = re.search(r'from (\S+) to (below )?(\S+)$', rule(None)).groups()
        low, high = (ast.literal_eval(end.replace(',', '')) for end in (low, high))
        whole = 'whole' in rule(None)
        step = 1 if whole else 1e-12
        assert rule(low) is None and (rule(high) is None) == (not below)
        assert rule(low - step) and rule(high * (1 + 1e-9) + whole)
        assert whole or rule((low + high) / 2) is None


def test_comments_of_the_defaults_tell_the_ranges(root):
    """Of each number, in words of its messages."""
    text = (root / 'configs' / 'default.py').read_text()
    numbers = 0
    for name, line in re.findall(r'^    config\.([\w.]+) = (.*)$', text, re.MULTILINE):
        told = re.search(r'from \S+ to (below )?\S+$', RULES[name](None)) if name in RULES else None
        if told:
            assert told[0] in line, f'{name}: say {told[0]!r} in its comment'
            numbers += 1
    assert numbers > 25


def test_a_misspelt_field_of_a_file_is_named(tmp_path):
    config = motion_vicreg.get_config()
    config.optimizer.base_rat = 3.0
    with pytest.raises(UserError, match='config.optimizer.base_rat .* nothing reads: is it config.optimizer.base_rate'):
        check_fields(config)


@pytest.mark.parametrize(('name', 'wrong'), [
    ('augment.area', (0.9, 0.1)), ('optimizer.milestones', (3, 3)), ('retrieval.ks', (5, 10)),
    ('linear.strengths', (1.0, 1.0)), ('eval.name', 'cache')])
def test_values_that_do_not_fit_each_other_or_a_folder_in_use_are_refused(name, wrong):
    """Ranges the wrong way round, what is there twice, ranks without the first, and the folder of the features."""
    with pytest.raises(UserError, match=rf'^config\.{name} is .+: it must be .+\.$'):
        check_fields(nested(name, wrong))


def test_parts_keep_to_the_rules_of_their_fields():
    with pytest.raises(UserError, match='^config.parts.finetune.epochs is 0'):
        check_fields({'parts': {'finetune': {'epochs': 0}}})
    assert rule_of('parts.linear.linear.strengths') is RULES['linear.strengths'] and rule_of('parts.linear') is None


def test_lists_and_numbers_of_numpy_may_be_given():
    import numpy as np

    config = default.get_config()
    config.framework.projector = [8, 8]
    config.optimizer.base_rate = np.sqrt(2.0)
    config.schedule = {'phases': ((0, 1),), 'coin': True}
    check_fields(config)
    check_fields(ConfigDict({'augment': {'area': [0.5, 1]}}))
