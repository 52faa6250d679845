"""Synthetic scenes: materials, organs and the things of a photograph."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_delse.synthetic.shapes import (
    Canvas,
    SceneConfig,
    Shape,
    blob,
    intersection,
    log_uniform,
    normalised,
    object_radii,
    polygon,
    random_centre,
    random_texture,
    smooth,
    tube,
    uneven_background,
    union,
    wandering_path,
)


def split(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Objects in two or three parts under one id, because something lies across them."""
    size = config.size
    canvas = Canvas(uneven_background(rng, size, rng.uniform(0.1, 0.5)))
    level, over = rng.uniform(0.5, 1), rng.uniform(0, 1)
    mottle = 1 + rng.uniform(0, 0.25) * random_texture(rng, size)
    for radius in object_radii(rng, config, rng.uniform(0.2, 0.5), smallest=2):
        centre = rng.uniform(0.1 * size, 0.9 * size, 2)
        shape = blob(rng, size, centre, radius, 0.1, 2.5)
        if canvas.overlap(shape) > 0:
            continue
        canvas.paint(shape, level * rng.uniform(0.8, 1.2) * mottle[shape.window])
        canvas.mark(shape)
        bands = 1 if radius < 15 or rng.random() < 0.6 else 2
        heading = rng.uniform(0, 2 * np.pi)
        ahead = np.array([np.sin(heading), np.cos(heading)])
        for k in range(bands):
            shift = (k - (bands - 1) / 2) * 0.8 * radius + rng.uniform(-0.2, 0.2) * radius
            start = centre + shift * ahead[::-1] * [1, -1] - 2.2 * radius * ahead
            path = wandering_path(rng, start, heading, 4.4 * radius, 0.02)
            half = max(1.5, radius * rng.uniform(0.06, 0.22))
            band = tube(size, path, np.full(len(path), half))
            canvas.paint(band, over * (1 + 0.1 * mottle[band.window]))
            canvas.mark(band, background=True)
    return canvas


def crystals(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Crystals and grains: facetted polygons, the later ones on top, some translucent."""
    size = config.size
    canvas = Canvas(uneven_background(rng, size, rng.uniform(0.1, 0.6)))
    clear, bevel, edge = rng.uniform(0.6, 1), rng.uniform(0.1, 0.5), rng.uniform(-0.4, 0.4)
    grain = rng.uniform(0, 0.08) * random_texture(rng, size)
    for radius in object_radii(rng, config, rng.uniform(0.2, 0.8), smallest=1.3):
        shape, facet = polygon(rng, size, random_centre(rng, size), radius)
        shades = np.append(rng.uniform(0.2, 1, int(facet.max()) + 1), rng.uniform(0.4, 0.9))
        top = shape.distance > bevel * radius
        value = np.where(top, shades[-1], shades[facet.astype(int)] * 0.5 + 0.5 * shades[-1])
        value = value + edge * np.exp(-(np.maximum(shape.distance, 0) / 1.5)) + grain[shape.window]
        canvas.paint(shape, value, clear)
        canvas.mark(shape)
    return canvas


def particles(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Electron micrographs of particles: bright edges and shading (SEM), or shadows that add up (TEM)."""
    size = config.size
    transmission, tilt = rng.random() < 0.4, rng.normal(0, 0.25, 2)
    canvas = Canvas(uneven_background(rng, size, rng.uniform(0.6, 0.9) if transmission else rng.uniform(0.05, 0.4)))
    facetted, roughness, edge = rng.random() < 0.35, rng.uniform(0.01, 0.12), rng.uniform(0.1, 0.6)
    base, grain = rng.uniform(0.3, 0.7), rng.uniform(0, 0.1) * smooth(rng, size, rng.uniform(1, 4))
    for radius in object_radii(rng, config, rng.uniform(0.3, 1.1), largest=0.7):
        centre = random_centre(rng, size)
        shape = polygon(rng, size, centre, radius)[0] if facetted else blob(rng, size, centre, radius, roughness)
        if canvas.overlap(shape) > 0.75:
            continue
        depth = np.clip(shape.distance / radius, 0, 1)
        if transmission:
            dark = np.exp(-rng.uniform(0.5, 1.6) * np.sqrt(depth + 0.1)) + grain[shape.window]
            canvas.paint(shape, canvas.image[shape.window] * dark)
        else:
            y, x = np.ogrid[shape.window]
            shading = (tilt[0] * (y - centre[0]) + tilt[1] * (x - centre[1])) / radius
            glow = edge * np.exp(-np.maximum(shape.distance, 0) / (0.1 * radius + 1))
            canvas.paint(shape, base * rng.uniform(0.85, 1.15) * (1 + shading) + glow + grain[shape.window])
        canvas.mark(shape)
    return canvas


def precipitates(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Alloys, foams and domains: a random field above a threshold, each connected part an object."""
    size = config.size
    scale = log_uniform(rng, 8, 45) * size / 256
    phase = smooth(rng, size, scale) + rng.uniform(0, 0.15) * smooth(rng, size, scale / 4)
    phase = np.abs(phase) - 0.5 if rng.random() < 0.5 else phase
    whole = Shape((slice(0, size), slice(0, size)), normalised(scale * (phase - rng.uniform(0, 0.8))))
    canvas = Canvas(uneven_background(rng, size, rng.uniform(0.2, 0.7)) + 0.03 * random_texture(rng, size))
    grain = rng.uniform(0, 0.08) * random_texture(rng, size)
    canvas.paint(whole, canvas.image.mean() + rng.choice([-1, 1]) * rng.uniform(0.05, 0.4) + grain)
    canvas.image += rng.uniform(-0.1, 0.35) * np.exp(-((whole.distance / rng.uniform(1, 2.5)) ** 2))  # bright edge
    canvas.labels[:] = ndimage.label(whole.distance > 0)[0]
    return canvas


def layers(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Cross sections: coatings, tissue layers or melt pools on each other, with pores and cracks."""
    size = config.size
    n = int(rng.integers(2, 6))
    levels = 0.1 + (rng.random() + np.cumsum(rng.uniform(0.15, 0.65, n + 1))) % 0.85  # neighbours always differ
    canvas = Canvas(np.full((size, size), levels[0]))
    edges = np.sort(rng.uniform(0.1, 0.95, n)) * size
    waves = rng.uniform(0.5, 6, n)
    y = np.arange(size, dtype=np.float32)[:, None]
    for edge, level, wave in zip(edges, levels[1:], waves, strict=True):
        profile = edge + wave * smooth(rng, size, rng.uniform(8, 60))[0] + 0.2 * wave * smooth(rng, size, 3)[0]
        shape = Shape((slice(0, size), slice(0, size)), normalised(y - profile.astype(np.float32)))
        canvas.paint(shape, level + rng.uniform(0, 0.08) * random_texture(rng, size))
        canvas.mark(shape)
    canvas.labels[canvas.labels == canvas.count * int(rng.random() < 0.5)] = 0  # the substrate, perhaps
    for _ in range(int(rng.integers(0, 25))):  # pores stay part of their layer, as annotators see it
        pore = blob(rng, size, random_centre(rng, size), log_uniform(rng, 1, 5), 0.2, 4)
        canvas.paint(pore, 0.05)
    if rng.random() < 0.5:
        canvas.image, canvas.labels = canvas.image.T.copy(), canvas.labels.T.copy()
    return canvas


def textured(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Regions that differ from their surroundings in texture only; the mean is the same."""
    size = config.size
    contrast = rng.uniform(0.08, 0.2)
    styles = rng.permutation(4)
    canvas = Canvas(0.5 + contrast * random_texture(rng, size, int(styles[0])))
    patterns = [random_texture(rng, size, int(style)) for style in styles[1 : rng.integers(2, 4)]]
    for radius in object_radii(rng, config, rng.uniform(0.15, 0.5), smallest=4)[:8]:
        shape = blob(rng, size, random_centre(rng, size), radius, rng.uniform(0.03, 0.2), 2)
        if canvas.overlap(shape) > 0.1:
            continue
        canvas.paint(shape, 0.5 + contrast * patterns[int(rng.integers(len(patterns)))][shape.window])
        canvas.mark(shape)
    return canvas


def ultrasound(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Ultrasound: multiplicative speckle wider across the beam, fasciae, bright walls, log compression, a sector."""
    size = config.size
    echo = np.exp(0.35 * smooth(rng, size, size / 6)) * 0.4
    warp = (np.arange(size)[:, None] + 6 * smooth(rng, size, size / 3)).clip(0, size - 1).astype(int)
    strata = smooth(rng, size, rng.uniform(3, 10))[:, 0][warp] * (smooth(rng, size, 25) > rng.uniform(-0.5, 1))
    canvas = Canvas(echo * np.exp(rng.uniform(0, 0.9) * strata))
    for radius in object_radii(rng, config, rng.uniform(0.15, 0.5), smallest=5)[:4]:
        shape = blob(rng, size, random_centre(rng, size), radius, rng.uniform(0.03, 0.12), 2, margin=8)
        if canvas.overlap(shape) > 0:
            continue
        gap = (smooth(rng, size, 20) > rng.uniform(-2, 0.5))[shape.window]
        wall = np.exp(-((shape.distance / rng.uniform(1.5, 4)) ** 2)) * gap
        canvas.paint(shape, rng.choice([0.02, 0.08, 0.2, 1.2]) * np.exp(0.4 * smooth(rng, size, 15))[shape.window])
        canvas.image[shape.window] += rng.uniform(0, 2.5) * wall
        canvas.mark(shape)
    grain = rng.uniform(0.6, 1.6)
    scatter = rng.standard_normal((2, size, size), dtype=np.float32)
    scatter = ndimage.gaussian_filter(scatter, (0, grain, grain * rng.uniform(1.2, 2.5)))
    envelope = np.hypot(*scatter) * canvas.image
    image = np.log1p(envelope / envelope.mean() * log_uniform(rng, 0.5, 12))
    image *= 1 - rng.uniform(0, 0.7) * np.linspace(0, 1, size)[:, None] ** 2
    canvas.image = np.asarray(image / image.max(), dtype=np.float32)
    if rng.random() < 0.4:
        y, x = np.mgrid[0.1 : 1.1 : size * 1j, -0.5 : 0.5 : size * 1j]
        view = (np.abs(np.arctan2(x, y)) < rng.uniform(0.5, 0.8)) & (np.hypot(x, y) < rng.uniform(0.95, 1.1))
        canvas.image *= view
        canvas.labels *= view
    return canvas


def _organ(rng: np.random.Generator, canvas: Canvas, shape: Shape, radius: float, level: float) -> None:
    """Paint an organ; some have a wall of the other contrast and muscles inside, which belong to them."""
    size = canvas.image.shape[0]
    value = max(0.03, level + rng.choice([-1, 1]) * rng.uniform(0.08, 0.5))
    if rng.random() < 0.5:
        wall = Shape(shape.window, shape.distance + 0.3 * radius * rng.random() + 1)
        canvas.paint(wall, max(0.03, 2 * level - value))
    canvas.paint(shape, value * (1 + rng.uniform(0, 0.12) * smooth(rng, size, rng.uniform(3, 12))[shape.window]))
    middle = np.array([(s.start + s.stop - 1) / 2 for s in shape.window])
    for _ in range(int(rng.integers(0, 3)) * int(radius > 12)):
        turn = rng.uniform(0, 2 * np.pi)
        at = np.clip(middle + 0.6 * radius * np.array([np.sin(turn), np.cos(turn)]), 0, size - 1)
        canvas.paint(intersection(size, blob(rng, size, at, radius * rng.uniform(0.08, 0.18)), shape), level, 0.8)


def scanner(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """MRI or CT slice: a body with organs of low contrast, some with a wall, under a bias field."""
    size = config.size
    canvas = Canvas(np.full((size, size), 0.03))
    middle = size / 2 + rng.uniform(-0.08, 0.08, 2) * size
    body = blob(rng, size, middle, size * rng.uniform(0.4, 0.75), 0.05, 1.5)
    canvas.paint(body, rng.uniform(0.6, 1.3))  # fat
    tissue = Shape(body.window, body.distance - rng.uniform(2, 14))
    level = rng.uniform(0.25, 0.5)
    canvas.paint(tissue, level * (1 + 0.12 * smooth(rng, size, rng.uniform(5, 20)))[tissue.window])
    for _ in range(int(rng.integers(0, 14))):  # anatomy that has no label
        at = np.clip(middle + rng.normal(0, 0.25 * size, 2), 0, size - 1)
        other = blob(rng, size, at, log_uniform(rng, 3, 45) * size / 256, 0.2, 4)
        canvas.paint(intersection(size, other, tissue), max(0.03, level + rng.normal(0, 0.2)))
    for radius in object_radii(rng, config, rng.uniform(0.2, 0.6), largest=0.8, smallest=1.5)[:14]:
        at = middle + rng.normal(0, 0.2 * size, 2).clip(-size / 3, size / 3)
        shape = intersection(size, blob(rng, size, at, radius, 0.07, 1.8, margin=0.35 * radius + 4), tissue)
        if canvas.overlap(Shape(shape.window, shape.distance + 2 + 0.3 * radius)) > 0:
            continue
        _organ(rng, canvas, shape, float(radius), level)
        canvas.mark(shape)
    bias = np.exp(rng.uniform(0, 0.4) * smooth(rng, size, size / 1.5))
    canvas.image = np.asarray(ndimage.gaussian_filter(canvas.image, rng.uniform(0.3, 1.2)) * bias, dtype=np.float32)
    return canvas


def _thing(rng: np.random.Generator, size: int, radius: float) -> list[Shape]:
    """Shapes whose union is one thing of a photograph: one to four parts that overlap."""
    centre = random_centre(rng, size)
    parts = []
    for _ in range(int(rng.choice([1, 1, 2, 3, 4]))):
        choice = rng.random()
        if choice < 0.25:
            part = polygon(rng, size, centre, radius)[0]
        elif choice < 0.75:
            part = blob(rng, size, centre, 0.8 * radius, 0.12, 2.5)
        else:
            path = wandering_path(rng, centre, rng.uniform(0, 2 * np.pi), 2.5 * radius, 0.03)
            part = tube(size, path, np.full(len(path), max(1.5, 0.25 * radius)))
        parts.append(part)
        turn = rng.uniform(0, 2 * np.pi)
        centre = np.clip(centre + 0.7 * radius * np.array([np.sin(turn), np.cos(turn)]), 0, size - 1)
        radius = radius * rng.uniform(0.4, 0.9)
    return parts


def clutter(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Photographs in RGB: things of several parts, colours and textures in front of each other, shaded."""
    size = config.size
    textures = [random_texture(rng, size), smooth(rng, size, 4), smooth(rng, size, 30)]
    grey, vivid = rng.uniform(0.2, 0.8), rng.uniform(0.05, 0.35)
    palette = np.clip(grey + 0.3 * rng.standard_normal((7, 1)) + vivid * rng.standard_normal((7, 3)), 0.02, 0.98)
    canvas = Canvas(palette[0] + 0.1 * textures[2][..., None] * palette[1] + 0.06 * textures[1][..., None])
    for scale in (0.5, 0.25):  # scenery
        ground = blob(rng, size, random_centre(rng, size), scale * size, 0.15, 4)
        canvas.paint(
            ground, palette[1] + rng.uniform(0, 0.15) * textures[int(rng.integers(3))][ground.window][..., None]
        )
    for radius in np.sort(object_radii(rng, config, rng.uniform(0.3, 1), smallest=3))[::-1][:12]:
        parts = _thing(rng, size, float(radius))
        tilt, first = rng.normal(0, 0.25, 2), int(rng.integers(2, 7))
        for k, part in enumerate(parts):
            y, x = (np.arange(s.start, s.stop) - (s.start + s.stop) / 2 for s in part.window)
            light = np.clip(1 + (tilt[0] * y[:, None] + tilt[1] * x) / (2 * radius), 0.3, 1.7)
            pattern = rng.uniform(0, 0.15) * textures[int(rng.integers(3))][part.window]
            colour = palette[2 + (first + k * int(rng.random() < 0.6)) % 5] + rng.normal(0, 0.04, 3)
            canvas.paint(part, colour * light[..., None] + pattern[..., None])
        canvas.mark(union(parts))
    return canvas


SCENES = {
    scene.__name__: scene
    for scene in (split, crystals, particles, precipitates, layers, textured, ultrasound, scanner, clutter)
}
