"""Synthetic scenes: cells and tissue under a microscope."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_delse.synthetic.shapes import (
    Canvas,
    SceneConfig,
    Shape,
    amoeboid,
    blob,
    intersection,
    log_uniform,
    neuron,
    object_radii,
    random_centre,
    random_texture,
    smooth,
    tube,
    uneven_background,
    union,
    voronoi,
    wandering_path,
)


def blobs(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Fluorescent nuclei and cells: bright, mottled, some in clusters that touch."""
    size = config.size
    canvas = Canvas(uneven_background(rng, size, rng.uniform(0.02, 0.2)))
    mottle = 1 + rng.uniform(0, 0.35) * smooth(rng, size, rng.uniform(2, 12))
    roughness, dome, spread = rng.choice([0.04, 0.1, 0.2]), rng.uniform(0, 0.6), rng.uniform(0.05, 0.5)
    contact = rng.uniform(0, 0.2)
    previous = random_centre(rng, size)
    for radius in object_radii(rng, config, rng.uniform(0.15, 0.7)):
        clustered = rng.random() < 0.5
        centre = previous + rng.normal(0, 1.8 * radius, 2) if clustered else random_centre(rng, size)
        centre = np.clip(centre, 0, size - 1)
        shape = blob(rng, size, centre, radius, roughness)
        if canvas.overlap(shape) > contact:
            continue
        height = 1 - dome + dome * np.sqrt(np.clip(shape.distance / radius, 0, 1))
        level = rng.uniform(0.5, 0.7) * np.exp(spread * rng.standard_normal())
        canvas.paint(shape, np.clip(level, 0.3, 1.5) * height * mottle[shape.window])
        canvas.mark(shape)
        previous = centre
    return canvas


def packed_cells(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Epithelium: packed cells with a stained membrane, or stained cytoplasm and dark gaps; some cells missing."""
    size = config.size
    spacing = log_uniform(rng, 16, 90) * size / 256
    cell, border = voronoi(rng, size, spacing)
    number = int(cell.max()) + 1
    gap = rng.choice([0.0, 0.5, 1.0]) if rng.random() < 0.7 else rng.uniform(1, 0.08 * spacing + 1)
    tissue = smooth(rng, size, size / 3)
    area = np.bincount(cell.ravel())
    centres = np.bincount(cell.ravel(), tissue.ravel()) / np.maximum(area, 1)
    absent = ~(centres > rng.uniform(-3, 0)) | (rng.random(number) < rng.uniform(0, 0.15))
    present = ~absent[cell]
    width = rng.uniform(0.7, 1 + 0.05 * spacing)
    rim = np.exp(-((border / width) ** 2))
    levels = rng.uniform(0.3, 0.8) * (1 + rng.uniform(0, 0.3) * rng.standard_normal(number))
    inner = levels[cell] * (1 + rng.uniform(0, 0.2) * smooth(rng, size, rng.uniform(2, 8)))
    if rng.random() < 0.5:  # membrane: strength varies along it
        strength = np.clip(0.8 + 0.25 * smooth(rng, size, spacing / 2), 0.2, 1.3)
        image = present * (rng.uniform(0.1, 0.5) * inner * (1 - rim) + strength * rim)
    else:
        image = present * inner * np.clip(border - gap + 0.5, 0, 1) * (1 - rng.uniform(0, 0.5) * rim)
    canvas = Canvas(ndimage.gaussian_filter(image, 0.5) + uneven_background(rng, size, 0.06))
    canvas.labels[:] = np.where(present & (border > gap), cell + 1, 0)
    canvas.count = number
    return canvas


def rings(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Tubules, crypts, vesicles: walls around a lumen, which is background."""
    size = config.size
    canvas = Canvas(uneven_background(rng, size, rng.uniform(0.1, 0.5)))
    wall, lumen = rng.uniform(0.55, 1), rng.choice([canvas.image.mean(), 0.05, rng.uniform(0, 0.5)])
    lumen = min(lumen, 0.5 * wall)
    mottle = 1 + rng.uniform(0, 0.25) * random_texture(rng, size)
    for radius in object_radii(rng, config, rng.uniform(0.2, 2), smallest=1.6):
        centre = random_centre(rng, size)
        shape = blob(rng, size, centre, radius, 0.07)
        if canvas.overlap(shape) > 0.02:
            continue
        canvas.paint(shape, wall * rng.uniform(0.75, 1.2) * mottle[shape.window])
        canvas.mark(shape)
        holes = 1 if radius < 25 or rng.random() < 0.7 else int(rng.integers(2, 5))
        closed = rng.random() < 0.95
        for _ in range(holes):
            inner = radius * (rng.uniform(0.35, 0.8) if holes == 1 else rng.uniform(0.15, 0.3))
            shift = 0.3 * (radius - inner) if holes == 1 else 0.45 * radius
            hole = blob(rng, size, np.clip(centre + rng.uniform(-shift, shift, 2), 0, size - 1), inner, 0.07, 1.25)
            if closed:
                hole = intersection(size, hole, shape, max(1.5, 0.08 * radius))
            canvas.paint(hole, lumen)
            canvas.mark(hole, background=True)
    return canvas


def neurites(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Neurons, glia, vessels: processes 2 to 6 pixels wide that cross and branch."""
    size = config.size
    canvas = Canvas(uneven_background(rng, size, rng.uniform(0.02, 0.3)))
    beads = 1 + rng.uniform(0, 0.25) * smooth(rng, size, 3)
    for _ in range(int(rng.choice([1, 1, 2, 3, 5]))):
        shape = neuron(rng, size, log_uniform(rng, 30, 150) * size / 256, rng.uniform(2, 6))
        bright = rng.uniform(0.4, 1) * (0.7 + 0.3 * np.clip(shape.distance / 4, 0, 1))
        canvas.paint(shape, bright * beads[shape.window])
        canvas.mark(shape)
    return canvas


def rods(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Bacteria and filaments: curved rods, also in bundles."""
    size = config.size
    canvas = Canvas(uneven_background(rng, size, rng.uniform(0.05, 0.4)))
    half = log_uniform(rng, 2, 9) * size / 256
    dome, bundle = rng.uniform(0, 0.8), rng.uniform(0, np.pi)
    order, bend, level = rng.uniform(0.1, 3), rng.uniform(0, 0.3) / half, rng.uniform(0.5, 1)
    for _ in range(int(rng.integers(3, 2 * config.max_objects))):
        length = half * rng.uniform(2, 14)
        path = wandering_path(rng, random_centre(rng, size), bundle + order * rng.standard_normal(), length, bend)
        shape = tube(size, path, np.full(len(path), half * rng.uniform(0.85, 1.15)))
        if canvas.overlap(shape) > 0.02:
            continue
        height = 1 - dome + dome * np.sqrt(np.clip(shape.distance / half, 0, 1))
        canvas.paint(shape, level * rng.uniform(0.8, 1.2) * height)
        canvas.mark(shape)
    return canvas


def histology(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Stained sections in RGB: nuclei and stroma absorb as two dyes (H&E or DAB) after Beer and Lambert."""
    size = config.size
    dyes = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]) if rng.random() < 0.8 else None
    dyes = np.array([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]]) if dyes is None else dyes
    dyes = np.clip(dyes + rng.normal(0, 0.05, (2, 3)), 0.01, 1.1)
    fibres = 0.5 * random_texture(rng, size) + 0.8 * smooth(rng, size, rng.uniform(6, 25))
    eosin = Canvas(np.clip(rng.uniform(0.2, 0.5) * (1 + 0.35 * fibres), 0.02, 1.5))
    gaps = np.clip(3 * (smooth(rng, size, size / 6) - rng.uniform(1, 2.5)), 0, 1)
    eosin.image *= 1 - 0.95 * gaps
    haem = Canvas(0.25 * eosin.image)
    chromatin = 1 + rng.uniform(0.1, 0.35) * smooth(rng, size, rng.uniform(1.5, 4))
    rim, dark, roughness = rng.uniform(0, 0.5), rng.uniform(0.5, 1.3), rng.uniform(0.04, 0.12)
    for radius in object_radii(rng, config, rng.uniform(0.15, 0.45), largest=0.3):
        shape = blob(rng, size, random_centre(rng, size), radius, roughness, 2.2)
        if haem.overlap(shape) > 0.08:
            continue
        edge = 1 + rim * np.exp(-np.maximum(shape.distance, 0) / 1.2)
        haem.paint(shape, dark * rng.uniform(0.6, 1.2) * edge * chromatin[shape.window])
        eosin.paint(shape, 0.15)
        haem.mark(shape)
    absorbed = np.clip(haem.image, 0, 3)[..., None] * dyes[0] + eosin.image[..., None] * dyes[1]
    canvas = Canvas(rng.uniform(0.88, 1) * np.exp(-absorbed))
    canvas.labels, canvas.count = haem.labels, haem.count
    return canvas


def phase_contrast(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Phase contrast (halo, shade-off) or DIC (relief), a filter of the optical thickness: grey inside as outside."""
    size = config.size
    canvas = Canvas(0.03 * smooth(rng, size, 5))
    organelles = smooth(rng, size, rng.uniform(1.5, 4))
    flat, rough = rng.uniform(0.3, 0.9), rng.uniform(0.05, 0.35)
    round_up = rng.uniform(0, 0.4)
    for radius in object_radii(rng, config, rng.uniform(0.1, 0.6), largest=0.5, smallest=1.8)[:25]:
        rounded = rng.random() < round_up  # a dividing cell: small, round, thick, hence bright
        shape = blob(rng, size, random_centre(rng, size), 0.6 * radius) if rounded else amoeboid(rng, size, radius)
        if canvas.overlap(shape) > 0.05:
            continue
        dome = flat + (1 - flat) * np.clip(shape.distance / (0.6 * radius), 0, 1)
        thickness = rng.uniform(1.5, 2.5) if rounded else rng.uniform(0.6, 1.2)
        canvas.paint(shape, thickness * dome * (1 + rough * organelles[shape.window]))
        canvas.mark(shape)
    phase = ndimage.gaussian_filter(canvas.image, rng.uniform(0.4, 1))
    if rng.random() < 0.25:
        turn = rng.uniform(0, 2 * np.pi)
        gy, gx = np.gradient(ndimage.gaussian_filter(phase, 0.8))
        signal = 3 * (np.sin(turn) * gy + np.cos(turn) * gx)
    else:
        signal = rng.uniform(0.8, 1.15) * ndimage.gaussian_filter(phase, log_uniform(rng, 1.5, 8)) - phase
        signal = np.where(phase > 1.5, -signal, signal)
    canvas.image = np.asarray(0.5 + rng.uniform(0.6, 1.4) * signal + 0.02 * smooth(rng, size, 60), dtype=np.float32)
    return canvas


def smear(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Blood smear: red cells and white cells with a lobed nucleus, in RGB; labels are whole cells or nuclei."""
    size = config.size
    sky = np.clip(np.array([0.95, 0.93, 0.85]) + rng.normal(0, 0.08, 3), 0, 1)
    canvas = Canvas(sky + 0.01 * smooth(rng, size, 4)[..., None])
    stains = np.array([[0.85, 0.62, 0.6], [0.78, 0.72, 0.85], [0.35, 0.15, 0.5]])
    red, plasma, violet = np.clip(stains + rng.normal(0, 0.07, (3, 3)), 0, 1)
    nuclei, white = rng.random() < 0.5, rng.uniform(0.1, 0.9)
    grain = smooth(rng, size, rng.uniform(1.5, 4))[..., None]
    for radius in object_radii(rng, config, rng.uniform(0.15, 0.6), largest=0.7, smallest=2):
        centre = random_centre(rng, size)
        cell = blob(rng, size, centre, radius, 0.04, 1.2)
        if canvas.overlap(cell) > 0.05:
            continue
        if canvas.count and rng.random() > white:
            pale = np.clip(1.4 * cell.distance / radius - 0.4, 0, 1)[..., None] * rng.uniform(0, 0.8)
            canvas.paint(cell, red + pale * (sky - red), 0.9)
            if not nuclei:
                canvas.mark(cell)
            continue
        canvas.paint(cell, plasma + 0.05 * grain[cell.window])
        lobes = int(rng.integers(1, 5))
        inner = radius * rng.uniform(0.55, 0.85) / np.sqrt(lobes)
        turns = rng.uniform(0, 2 * np.pi) + np.arange(lobes) * rng.uniform(1, 1.6)
        at = centre + 0.9 * inner * (lobes > 1) * np.stack([np.sin(turns), np.cos(turns)], 1)
        parts = [blob(rng, size, np.clip(c, 0, size - 1), inner, 0.08, 1.4) for c in at]
        nucleus = intersection(size, union(parts), cell, 1)
        canvas.paint(nucleus, violet * (1 + 0.15 * grain[nucleus.window]))
        canvas.mark(nucleus if nuclei else cell)
    return canvas


def ultrastructure(rng: np.random.Generator, config: SceneConfig) -> Canvas:
    """Electron micrograph of tissue: dark membranes, mitochondria with cristae; the labels are one or the other."""
    size = config.size
    spacing = log_uniform(rng, 30, 110) * size / 256
    cell, border = voronoi(rng, size, spacing)
    cytoplasm = (rng.uniform(0.6, 0.85, int(cell.max()) + 1))[cell] + 0.05 * smooth(rng, size, 2)
    membrane = np.exp(-((border / rng.uniform(0.8, 1.8)) ** 2))
    canvas = Canvas(cytoplasm * (1 - rng.uniform(0.5, 0.9) * membrane))
    cristae, dark = random_texture(rng, size), rng.uniform(0.3, 0.55)
    for radius in rng.uniform(0.1, 0.3, int(rng.integers(2, 14))) * spacing:
        centre = random_centre(rng, size)
        shape = blob(rng, size, centre, max(3.5, radius), 0.06, 3)
        y, x = np.rint(centre).astype(int)
        depth = np.minimum(shape.distance, np.where(cell == cell[y, x], border - 2, -2)[shape.window])
        shape = Shape(shape.window, depth)
        if canvas.overlap(shape) > 0:
            continue
        rim = np.exp(-((np.maximum(depth, 0) / 1.2) ** 2))
        canvas.paint(shape, dark + 0.1 * cristae[shape.window] - 0.2 * rim)
        canvas.mark(shape)
    if rng.random() < 0.4:
        canvas.labels[:] = np.where(border > rng.choice([0.0, 1.0]), cell + 1, 0)
    return canvas


SCENES = {
    scene.__name__: scene
    for scene in (blobs, packed_cells, rings, neurites, rods, histology, phase_contrast, smear, ultrastructure)
}
