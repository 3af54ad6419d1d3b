"""What pixels become, as plain numpy: one clip and one operation after the other, in float64.

Draws are JAX's, by the keys that `vididi_jax.pixels` documents; what they decide is decided in float32, as there.
"""

import jax
import jax.numpy as jnp
import numpy as np

LUMINANCE = np.array([0.2989, 0.587, 0.114])


def numbers(key, count):
    """Uniform in [0, 1), float32."""
    return np.asarray(jax.random.uniform(key, (count,), jnp.float32))


def between(number, limits):
    return limits[0] + np.float64(number) * (limits[1] - limits[0])


def below(number, count):
    return np.floor(number * np.float32(count)).astype(int)


def random_box(key, height, width, spec):
    drawn, levels = numbers(key, 22), 4096
    for first, second in zip(drawn[:10], drawn[10:20], strict=True):
        area = between((below(first, levels) + 0.5) / levels, spec.area)
        aspect = np.exp(between((below(second, levels) + 0.5) / levels, np.log(spec.aspect)))
        side = np.float32(np.sqrt(area)) * np.sqrt(np.float32(height * width))
        w, h = (int(np.round(side * np.float32(root))) for root in (aspect**0.5, aspect**-0.5))
        if 0 < w <= width and 0 < h <= height:
            return below(drawn[20], height - h + 1), below(drawn[21], width - w + 1), h, w
    w = min(width, max(1, int(np.round(np.float32(height) * np.float32(spec.aspect[1])))))
    h = min(height, max(1, int(np.round(np.float32(width) * np.float32(1 / spec.aspect[0])))))
    return (height - h) // 2, (width - w) // 2, h, w


def resize(frame, size, extents=None):
    """Antialiased bilinear: frame (h, w, 3), of which `extents` become `size` pixels, the whole of it if None."""
    for axis in (0, 1):
        length = frame.shape[axis]
        scale = (extents or frame.shape)[axis] / size
        distance = (np.arange(length) + 0.5)[:, None] - (np.arange(size) + 0.5) * scale  # (inputs, outputs)
        weights = np.maximum(1 - np.abs(distance) / max(scale, 1), 0)
        total = weights.sum(0)
        frame = np.moveaxis(np.tensordot(frame, weights / np.where(total > 0, total, 1), (axis, 0)), -1, axis)
    return frame


def cut(frame, box, size):
    top, left, height, width = box
    return resize(frame[top : top + height, left : left + width], size)


def blur(clip, sigma, kernel):
    half = kernel // 2
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        padded = np.pad(clip, [(half, half) if i == axis else (0, 0) for i in range(4)], mode='reflect')
        clip = sum(w * np.take(padded, range(i, i + clip.shape[axis]), axis) for i, w in enumerate(weights))
    return clip


def turn_hue(clip, shift):
    """RGB -> HSV, hue + shift, HSV -> RGB, by the sector of the hue."""
    value, chroma = clip.max(-1), np.ptp(clip, axis=-1)
    r, g, b = np.moveaxis(clip, -1, 0)
    with np.errstate(invalid='ignore', divide='ignore'):
        sector = np.select([value == r, value == g], [(g - b) / chroma, 2 + (b - r) / chroma], 4 + (r - g) / chroma)
    sector = (np.where(chroma > 0, sector, 0) + 6 * shift) % 6
    whole = np.floor(sector).astype(int) % 6
    part = sector - np.floor(sector)
    low, falling, rising = value - chroma, value - chroma * part, value - chroma * (1 - part)
    order = [(value, rising, low), (falling, value, low), (low, value, rising), (low, falling, value),
             (rising, low, value), (value, low, falling)]
    return np.select([(whole == i)[..., None] for i in range(6)], [np.stack(channels, -1) for channels in order])


def jitter(drawn, frames, spec):
    if not drawn[4] < np.float32(spec.jitter):
        return frames
    brightness, contrast, saturation = (
        between(n, (1 - amount, 1 + amount))
        for n, amount in zip(drawn[:3], (spec.brightness, spec.contrast, spec.saturation), strict=True))
    frames = np.clip(brightness * frames, 0, 1)
    frames = np.clip(contrast * frames + (1 - contrast) * (frames @ LUMINANCE).mean(), 0, 1)
    frames = np.clip(saturation * frames + (1 - saturation) * (frames @ LUMINANCE)[..., None], 0, 1)
    return turn_hue(frames, between(drawn[3], (-spec.hue, spec.hue)))


def gray(drawn, frames, spec):
    if not drawn[5] < np.float32(spec.gray):
        return frames
    one = frames[..., below(drawn[6], 3)] if spec.gray_mode == 'channel' else frames @ LUMINANCE
    return np.repeat(one[..., None], 3, -1)


def augment_clip(key, clip, size, spec):
    """One clip uint8 (T, H, W, 3) -> float64 (T, size, size, 3), as `vididi_jax.pixels.augment.augment` has it."""
    frames = len(clip)
    key, crop_key, colour_key = jax.random.split(key, 3)
    once = numbers(key, 9)

    def each(key, count):
        return [numbers(k, count) for k in jax.random.split(jax.random.fold_in(key, 1), frames)]

    flips = [drawn[0] for drawn in each(key, 9)] if spec.varies('flip') else [once[0]] * frames
    flips = [number < np.float32(spec.flip) for number in flips]
    height, width = map(int, size)
    clip = clip[:, :height, :width] / 255
    if spec.crop == 'random_resized':
        boxes = ([random_box(k, height, width, spec) for k in jax.random.split(crop_key, frames)]
                 if spec.varies('crop') else [random_box(crop_key, height, width, spec)] * frames)
        clip = np.stack([cut(frame, box, spec.size) for frame, box in zip(clip, boxes, strict=True)])
    clip = np.stack([frame[:, ::-1] if flip else frame for frame, flip in zip(clip, flips, strict=True)])
    if spec.shift:
        clip = np.roll(clip, [below(n, 2 * spec.shift + 1) - spec.shift for n in once[1:3]], (1, 2))

    def apply(operation, name, clip, key, drawn):
        if not spec.varies(name):
            return operation(drawn, clip, spec)
        return np.concatenate([operation(n, frame[None], spec)
                               for n, frame in zip(each(key, len(drawn)), clip, strict=True)])

    def maybe_blur(drawn, clip, spec):
        blurred = drawn[3] < np.float32(spec.blur)
        return blur(clip, between(drawn[4], spec.blur_sigma), spec.blur_kernel) if blurred else clip

    colours = numbers(colour_key, 7)
    clip = apply(maybe_blur, 'blur', clip, key, once)
    clip = apply(jitter, 'jitter', clip, colour_key, colours)
    clip = apply(gray, 'gray', clip, colour_key, colours)
    clip = clip * between(once[5], spec.gain) * between(once[6:9], spec.tint)
    return (clip - spec.mean) / spec.std


def augment(key, clips, sizes, spec):
    return np.stack([augment_clip(jax.random.fold_in(key, i), clip, size, spec)
                     for i, (clip, size) in enumerate(zip(clips, sizes, strict=True))])


def evaluation_crops(keys, clips, sizes, spec, crops):
    """(B, crops, T, size, size, 3), as `vididi_jax.pixels.crops.evaluation_crops`."""
    found = []
    for i, (clip, (height, width)) in enumerate(zip(clips, sizes, strict=True)):
        side = int(np.round(np.float32(spec.centre_fraction) * np.float32(min(height, width))))
        room = np.array([height - side, width - side])
        if crops == 'random':
            corners = [below(np.asarray(jax.random.uniform(keys[i], (2,), jnp.float32)), room + 1)]
        else:
            longer = np.array([height > width, height <= width])
            places = [room // 2] if crops == 'centre' else [0 * room, room // 2, room]
            corners = [np.where(longer, place, room // 2) for place in places]
        found.append([[cut(frame, (*corner, side, side), spec.size) for frame in clip / 255] for corner in corners])
    return (np.array(found) - spec.mean) / spec.std


def whole_frames(clips, sizes, boxes, spec):
    """As `vididi_jax.pixels.boxes.whole_frames`."""
    found = []
    for clip, (height, width) in zip(clips, sizes, strict=True):
        side = int(max(height, width))
        frames = np.stack([resize(frame, spec.size, (side, side)) for frame in clip[:, :height, :width] / 255])
        inside = [(2 * np.arange(spec.size) + 1) * side < 2 * spec.size * length for length in (height, width)]
        inside = inside[0][:, None, None] & inside[1][:, None]
        found.append(np.where(inside, (frames - spec.mean) / spec.std, 0))
    sizes = np.asarray(sizes, np.float64)
    return np.stack(found), boxes * np.tile(sizes[:, ::-1] / sizes.max(1, keepdims=True), 2)[:, None]
