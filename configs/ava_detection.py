"""Detection on AVA: trained on annotated boxes, tested on a detector's.

Command:  python main.py --config=configs/ava_detection.py --workdir=DIR --config.data.dir=data/ava
Variants: :frozen, :smoke
Hardware: one or more GPUs or TPU cores whose number divides the batch of 64
Time:     20 epochs of (training keyframes / 64) steps; not run
Expected: not measured yet; the paper's figures are of its own pretraining on Kinetics-400
Status:   not run

DIR is the workdir of the pretraining. From scratch: --config.eval.untrained=True --config.eval.name=scratch. The boxes
of the ground truth, after this: --config.detection.boxes=annotations --config.eval.run=detection
--config.eval.name=annotations. The variant :frozen trains the head alone. frame-mAP is from 0 to 1, that of the last
epoch, and computed from detections.csv, which is in the official form.
"""

from vididi_jax.configs import default


def get_config(variant: str = ''):
    config = default.evaluation('detection', variant, ('frozen', 'smoke'))
    config.eval.name = 'detection_frozen' if variant == 'frozen' else 'detection'
    # One clip around each keyframe, its whole frames; a record that is too short for it is refused.
    for name in ('protocol', 'folds', 'clips', 'short_video', 'crops'):
        del config.eval[name]
    config.eval.frames, config.eval.stride = 16, 2  # the 32 frames of data_prep's records, about two seconds
    config.eval.size = 384  # side of the square for whole frames, 16 to 4,096: people are about as large as in training
    config.eval.run = ''  # another evaluation of DIR whose detector is asked; '' trains one
    config = default.supervised(config, 'detection',
                                boxes='boxes',  # to be judged: the detector's, or 'annotations', the ground truth's
                                roi_size=7, sampling_ratio=2)  # see `models.roi_align`; from 1 to 64
    config.epochs, config.batch_size, config.optimizer.base_rate, config.optimizer.milestones = 20, 64, 0.2, (10, 15)
    config.detection.encoder_rate = 0.0 if variant == 'frozen' else 1.0
    # What differs from the pretraining's augmentation; crops leave most of a person's surroundings.
    config.augment = {'size': 224, 'crop': 'random_resized', 'area': (0.5, 1.0), 'aspect': (3 / 4, 4 / 3), 'flip': 0.5,
                      'shift': 0, 'blur': 0.0, 'jitter': 0.8, 'gray': 0.0}
    if variant == 'smoke':
        config.batch_size, config.epochs, config.optimizer.milestones = 8, 2, (1,)
        config.eval.frames, config.eval.stride, config.eval.size, config.augment.size = 8, 1, 48, 32
    return config
