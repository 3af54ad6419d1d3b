"""Every evaluation of a workdir in one go."""

import importlib
import json
from pathlib import Path

from ml_collections import ConfigDict

from vididi_jax.evaluate.evaluation import print_table
from vididi_jax.evaluate.results import write_results

MODULES = {name: f'vididi_jax.evaluate.{name}' for name in ('retrieval', 'linear', 'finetune')}


def run(config, workdir: str) -> dict:
    """Run each evaluation of `config.parts`, which writes its own result, and collect them in `eval/NAME/results.json`.

    The results of the parts stand in `eval/NAME_PART`.
    """
    common = {name: value for name, value in config.items() if name != 'parts'}
    results = {}
    for part, fields in config.parts.items():
        own = ConfigDict({**common, **fields}).copy_and_resolve_references()
        own.task, own.eval.name = part, f'{config.eval.name}_{part}'
        importlib.import_module(MODULES[part]).run(own.lock(), workdir)
        results[part] = json.loads((Path(workdir) / 'eval' / own.eval.name / 'results.json').read_text())
    first = next(iter(results.values()))
    same = ('protocol', 'data', 'clips_x_crops', 'counts', 'test_videos_without_their_class_in_train', 'transductive',
            'test_videos_seen_in_pretraining', 'encoder', 'checkpoint_step', 'seed', 'evaluation_seed',
            'training_config')
    metrics, std = ({part: result[key] for part, result in results.items()} for key in ('metrics', 'std'))
    path = write_results(workdir, config.eval.name, task='eval_all', metrics=metrics, config=config, std=std,
                         folds={part: result['folds'] for part, result in results.items()},
                         **{name: first[name] for name in same})
    print(f'\nall on {first["protocol"]}, {first["encoder"]} encoder, step {first["checkpoint_step"]}')
    for part, result in results.items():
        print(part)
        print_table(result['metrics'], result['std'], len(result['folds']))
    print(f'written to {path}')
    return metrics
