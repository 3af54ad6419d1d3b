"""Everything on the device that touches pixels: augmentation, what evaluation sees, and boxes that move with both."""
