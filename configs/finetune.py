"""Fine-tuning on the labels of the train videos, tested on the test videos.

Command:  python main.py --config=configs/finetune.py --workdir=DIR
Variants: :linear, :motion, :linear_motion, :smoke, :linear_smoke
Hardware: one or more GPUs or TPU cores whose number divides the batch of 128
Time:     120 epochs of (training videos / 128) steps; not run at full length
Expected: published: about 82.2 % top-1 on UCF101 after ViDiDi-VICReg (read off figure 1 of Chen et al., CPAL 2025, to
          within 0.3)
Status:   published; run by us with the :smoke variant and on 20 videos, as tests

From scratch, the baseline: --config.eval.untrained=True --config.eval.name=scratch. A second head on dV/dt, its loss
averaged with that of V: --config.finetune.orders='(0, 1)'. The variant :linear trains the heads alone, with the
encoder as in evaluation: the linear probe by SGD with augmentation. The accuracy is that of the last epoch.
"""

from vididi_jax.configs import default


def get_config(variant: str = ''):
    config = default.evaluation('finetune', variant, ('linear', 'motion', 'linear_motion', 'smoke', 'linear_smoke'))
    config = default.supervised(config, 'finetune')
    if variant.startswith('linear'):
        config.eval.name = 'finetune_linear'
        config.finetune.update({'orders': (0, 1), 'dropout': 0.0, 'encoder_rate': 0.0})
        config.optimizer.weight_decay = 0.0
    if variant.endswith('motion'):
        config.batch_size, config.epochs, config.optimizer.milestones = 32, 20, (10, 15)
    elif variant.endswith('smoke'):
        config.batch_size, config.epochs, config.optimizer.milestones = 8, 2, (1,)
    return config
