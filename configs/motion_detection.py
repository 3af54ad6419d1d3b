"""Detection on synthetic videos: the motion of each of one to three sprites.

Command:  python main.py --config=configs/motion_detection.py --workdir=DIR
Variants: :frozen, :smoke
Data:     python -m data_prep motion --boxes --out=data/motion_boxes
Hardware: 2 CPU cores
Time:     12 epochs of 24 steps; 6 minutes on one core with AVX-512, another run on the other
Expected: frame-mAP at IoU 0.5, ground-truth boxes, mean of both heads, seed 0: 0.948 after motion_vicreg.py, 0.408
          after it with --config.schedule=base, 0.329 from scratch; jittered boxes 0.808
Status:   measured by us

DIR is the workdir of a pretraining such as configs/motion_vicreg.py's, whose encoder and colours are taken. From
scratch: --config.eval.untrained=True --config.eval.name=scratch. With the detector's boxes, after this, without
training again: --config.detection.boxes=boxes --config.eval.run=detection --config.eval.name=boxes.
"""

from vididi_jax.configs import ava_detection


def get_config(variant: str = ''):
    if variant not in ('', 'frozen', 'smoke'):
        raise ValueError(f'there is no variant {variant!r}, only frozen, smoke')
    config = ava_detection.get_config(variant)
    config.data.dir = 'data/motion_boxes'
    config.data.workers = 0  # raw frames of 64x64: nothing to decode
    config.eval.frames, config.eval.stride, config.eval.size = 8, 1, 64
    config.detection.boxes = 'annotations'
    config.detection.orders = (0, 1)
    config.detection.dropout = 0.0
    # A flip would turn one class into another, and a crop would change speeds; gain and tint are the pretraining's.
    config.augment.update({'size': 64, 'crop': 'none', 'flip': 0.0, 'jitter': 0.0})
    config.optimizer.base_rate = 1.0
    if variant != 'smoke':
        config.batch_size, config.epochs, config.optimizer.milestones = 32, 12, (8, 10)
    return config
