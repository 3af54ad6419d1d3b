"""Action detection on AVA with a training run's encoder: trained on annotated boxes, tested on a detector's.

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

from configs import default


def get_config(variant: str = ''):
    config = default.evaluation('detection', variant, ('frozen', 'smoke'))
    config.eval.name = 'detection_frozen' if variant == 'frozen' else 'detection'
    # One clip around each keyframe, its whole frames; a record that is too short for it is refused.
    for name in ('protocol', 'folds', 'clips', 'short_video', 'crops'):
        del config.eval[name]
    config.eval.frames, config.eval.stride = 16, 2  # the 32 frames of data_prep's records, about two seconds
    config.eval.size = 384  # side of the square for whole frames: people are about as large as in training
    config.eval.run = ''  # another evaluation of DIR whose detector is asked; '' trains one
    config.epochs = 20
    config.batch_size = 64
    config.detection = {'orders': (0,),  # derivative orders with a head each; their probabilities are averaged
                        'boxes': 'boxes',  # to be judged: the detector's, or 'annotations', the ground truth's
                        'roi_size': 7, 'sampling_ratio': 2,
                        'dropout': 0.5,
                        'encoder_rate': 0.0 if variant == 'frozen' else 1.0,  # factor on its rate; 0: it stays as it is
                        'layer_decay': 1.0}  # factor on the rate from each of the encoder's blocks to the one below
    # What differs from the pretraining's augmentation; crops leave most of a person's surroundings.
    config.augment = {'size': 224, 'crop': 'random_resized', 'area': (0.5, 1.0), 'aspect': (3 / 4, 4 / 3), 'flip': 0.5,
                      'shift': 0, 'blur': 0.0, 'jitter': 0.8, 'gray': 0.0}
    config.optimizer = {'base_rate': 0.2,  # at 128 keyframes a step
                        'milestones': (10, 15), 'decay': 0.1, 'momentum': 0.9, 'weight_decay': 1e-4, 'clip_norm': 0.0}
    config.checkpoint = {'keep': 1, 'every_steps': 0}  # latest ones, besides the best; also within epochs
    config.log = {'every_steps': 10}
    if variant == 'smoke':
        config.batch_size, config.epochs, config.optimizer.milestones = 8, 2, (1,)
        config.eval.frames, config.eval.stride, config.eval.size, config.augment.size = 8, 1, 48, 32
    return config
