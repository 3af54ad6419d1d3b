"""Everything on the device that touches pixels: augmentation, evaluation's crops, boxes that move with the pixels."""
