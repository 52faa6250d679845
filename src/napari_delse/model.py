"""The network: from an image crop and its clicks to phi_0, the motion field and the modulation.

One class serves the paper's architecture and the small default; they differ in numbers only. The
encoder uses torchvision's parameter names, so that published ImageNet weights load unchanged.

References
----------
.. [1] Wang et al., Object Instance Annotation with Deep Extreme Level Set Evolution, CVPR 2019.
.. [2] He et al., Deep Residual Learning for Image Recognition, 2016, doi:10.1109/CVPR.2016.90
.. [3] Zhao et al., Pyramid Scene Parsing Network, 2017, doi:10.1109/CVPR.2017.660
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_delse.geometry import CropConfig
from napari_delse.levelset import EvolutionConfig, evolve
from napari_delse.settings import check_value, nested

_Config = TypeVar("_Config")

UNIT = 32  # heads speak in 1/32 of the crop side: one net serves several input sizes, and phi grows as fast as a logit


@dataclass(frozen=True)
class Architecture:
    """Numbers that tell one architecture from another."""

    block: Literal["basic", "bottleneck"]  # residual block of the encoder
    depths: tuple[int, int, int, int]  # residual blocks per stage
    widths: tuple[int, int, int, int]  # channels per stage (before the bottleneck's expansion by 4)
    stem: int  # channels of the first convolution
    stem_pool: bool  # ImageNet stem: 7 x 7 convolution and max pooling, else 3 x 3
    dilate_from: int  # first stage (1..5) that dilates instead of striding; 5 for none
    neck: int  # channels of the skip features
    skip_to: int  # last encoder stage joined by the skip features; 0 is the stem
    pool_first: bool  # one pyramid pooling before the skip features, instead of one in each branch
    head: int  # channels of each branch's last hidden layer
    editor: int  # channels of the six residual layers that edit the motion field
    editor_stride: int  # resolution at which it is edited, relative to the skip features


ARCHITECTURES: dict[str, Architecture] = {
    "resnet101-psp": Architecture(
        "bottleneck", (3, 4, 23, 3), (64, 128, 256, 512), 64, True, 3, 256, 1, False, 128, 128, 1
    ),
    "resnet50-psp": Architecture(
        "bottleneck", (3, 4, 6, 3), (64, 128, 256, 512), 64, True, 3, 256, 1, False, 128, 128, 1
    ),
    "small": Architecture("basic", (1, 2, 3, 3), (24, 48, 112, 224), 24, False, 5, 32, 0, True, 16, 64, 2),
}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that is needed to rebuild a model; saved in the checkpoint."""

    architecture: str = "small"  # a key of ARCHITECTURES
    skip_features: bool = True  # join low-level encoder features (Table 6)
    modulation: bool = True  # modulated curvature; False leaves the curvature term out (Table 6)
    motion: bool = True  # motion field and evolution; False is Level Set Regression (Table 6)
    output: Literal["delse", "dextr"] = "delse"  # "dextr": phi_0 is a logit and nothing evolves
    extreme_points: bool = True  # the click channel; False is DELSE* trained alone
    click_sigma: float = 0.025  # of the Gaussian at a click, as a fraction of the crop side
    truncation: float = 0.125  # D, as a fraction of the crop side
    signed_drags: bool = True  # keep the sign of a drag; the paper's text uses absolute values
    threshold: float = 0.0  # phi_T above this is inside, network pixels
    crop: CropConfig = field(default_factory=CropConfig)
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {self.architecture!r}")
        if self.output not in ("delse", "dextr"):
            raise ValueError(f"output must be 'delse' or 'dextr', got {self.output!r}")
        if not 0 < self.truncation <= 0.5 or not 0 < self.click_sigma <= 0.2:
            raise ValueError(
                f"truncation must lie in (0, 0.5] and click_sigma in (0, 0.2] of the crop side, "
                f"got {self.truncation} and {self.click_sigma}"
            )

    @property
    def evolves(self) -> bool:
        """Whether phi_0 is evolved at all."""
        return self.motion and self.output == "delse"

    def truncation_pixels(self, size: int | None = None) -> int:
        """D in network pixels for an input of the given side."""
        return max(1, round(self.truncation * (size or self.crop.size)))

    def resized(self, size: int) -> ModelConfig:
        """The same model for another input side."""
        return replace(self, crop=replace(self.crop, size=size))


class LevelSetFields(NamedTuple):
    """What the network predicts, at the crop's resolution and in network pixels."""

    phi0: Tensor  # (B, 1, H, W) initial level set function, positive inside
    motion: Tensor  # (B, 2, H, W) V, (y, x) per unit time
    modulation: Tensor  # (B, 1, H, W) m in [0, 1]


class Encoded(NamedTuple):
    """Fields together with what a correction needs to edit them."""

    fields: LevelSetFields
    features: Tensor  # (B, neck, H/s, W/s) skip features


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


def _conv_bn_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _resize(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    if x.shape[-2:] == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """Basic (3 x 3, 3 x 3) or bottleneck (1 x 1, 3 x 3, 1 x 1) block with torchvision's names."""

    def __init__(self, inputs: int, width: int, kind: str, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        outputs = width * (4 if kind == "bottleneck" else 1)
        if kind == "bottleneck":
            shapes = [(inputs, width, 1, 1, 1), (width, width, 3, stride, dilation), (width, outputs, 1, 1, 1)]
        else:
            shapes = [(inputs, width, 3, stride, dilation), (width, width, 3, 1, dilation)]
        self.depth = len(shapes)
        for i, (a, b, kernel, s, d) in enumerate(shapes, start=1):
            setattr(self, f"conv{i}", _conv(a, b, kernel, s, d))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.depth + 1):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            x = F.relu(x + shortcut if i == self.depth else x, inplace=True)
        return x


class Encoder(nn.Module):
    """Residual encoder with four input channels: RGB and the clicks."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.conv1 = _conv(4, arch.stem, 7 if arch.stem_pool else 3, 2)
        self.bn1 = nn.BatchNorm2d(arch.stem)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if arch.stem_pool else nn.Identity()
        channels = arch.stem
        self.channels = [channels]
        dilation = 1
        for stage, (depth, width) in enumerate(zip(arch.depths, arch.widths, strict=True), start=1):
            stride = 1 if stage == 1 or stage >= arch.dilate_from else 2
            previous, dilation = dilation, dilation * (2 if stage >= arch.dilate_from else 1)
            blocks = []
            for i in range(depth):
                # As in torchvision, a dilated stage's first block keeps the dilation of the stage before.
                blocks.append(
                    ResidualBlock(
                        channels, width, arch.block, stride if i == 0 else 1, previous if i == 0 else dilation
                    )
                )
                channels = blocks[-1].outputs
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            self.channels.append(channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [F.relu(self.bn1(self.conv1(x)), inplace=True)]
        x = self.maxpool(features[0])
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            features.append(x)
        return features


class PyramidPooling(nn.Module):
    """Averages over 1, 2, 3 and 6 bins joined to the features: context from the whole crop."""

    def __init__(self, inputs: int, outputs: int, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.bins = bins
        width = max(8, inputs // len(bins) // 2)
        # One value per channel is too few for batch statistics in a batch of one: no norm here.
        self.reduce = nn.ModuleList(nn.Sequential(nn.Conv2d(inputs, width, 1), nn.ReLU(inplace=True)) for _ in bins)
        self.join = _conv_bn_relu(inputs + width * len(bins), outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [_resize(r(_pool(x, n)), x.shape[-2:]) for n, r in zip(self.bins, self.reduce, strict=True)]
        joined: Tensor = self.join(torch.cat([x, *pooled], dim=1))
        return joined


def _pool(x: Tensor, bins: int) -> Tensor:
    """Adaptive average pooling, also where (as on MPS) bins must divide the side."""
    if x.device.type == "mps" and (x.shape[-1] % bins or x.shape[-2] % bins):
        return F.adaptive_avg_pool2d(x.cpu(), bins).to(x.device)
    return F.adaptive_avg_pool2d(x, bins)


class SkipFeatures(nn.Module):
    """Top-down path that joins the encoder's stages to the deepest features."""

    def __init__(self, channels: list[int], top: int, arch: Architecture, skip: bool) -> None:
        super().__init__()
        self.stages = list(range(3, arch.skip_to - 1, -1))
        inputs = [top, *(self._width(arch, s) for s in self.stages[:-1])]
        widths = [self._width(arch, s) for s in self.stages]
        self.reduce = nn.ModuleList(_conv(a, b, 1) for a, b in zip(inputs, widths, strict=True))
        self.lateral = nn.ModuleList(_conv(channels[s], w, 1) for s, w in zip(self.stages, widths, strict=True))
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(w), nn.ReLU(inplace=True), *_conv_bn_relu(w, w)) for w in widths
        )
        self.skip = skip

    @staticmethod
    def _width(arch: Architecture, stage: int) -> int:
        """Wider where the grid is coarse, at the price of nothing."""
        return arch.neck if arch.stem_pool else arch.neck * (1, 1, 2, 3)[stage]

    def forward(self, top: Tensor, features: list[Tensor]) -> Tensor:
        x = top
        for stage, reduce, lateral, smooth in zip(self.stages, self.reduce, self.lateral, self.smooth, strict=True):
            x = _resize(reduce(x), features[stage].shape[-2:])
            x = smooth(x + lateral(features[stage]) if self.skip else x)
        return x


class MotionEditor(nn.Module):
    """Re-predicts the motion field from drags (section 4.4): six residual layers and one convolution.

    Besides V and the two drag maps it sees phi_0 and the skip features, so that it knows where the
    image's edges are. Its last layer starts at zero: an untrained editor changes nothing.
    """

    def __init__(self, features: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.enter = _conv_bn_relu(5 + features, width)
        self.layers = nn.ModuleList(nn.Sequential(_conv(width, width), nn.BatchNorm2d(width)) for _ in range(6))
        self.leave = nn.Conv2d(width, 2, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, fields: LevelSetFields, features: Tensor, drags: Tensor) -> Tensor:
        grid = (features.shape[-2] // self.stride, features.shape[-1] // self.stride)
        unit = fields.phi0.shape[-1] / UNIT
        seen = torch.cat([fields.motion / unit, fields.phi0 / unit, drags], dim=1)
        # Area averaging, not sampling: thin drags must not fall between the samples.
        coarse = F.adaptive_avg_pool2d(seen, grid)
        x = self.enter(torch.cat([coarse, F.adaptive_avg_pool2d(features, grid)], dim=1))
        for layer in self.layers:
            x = F.relu(x + layer(x))
        edit: Tensor = self.leave(x)
        return fields.motion + _resize(edit.float(), fields.motion.shape[-2:]) * unit


class Delse(nn.Module):
    """Deep Extreme Level Set Evolution.

    Parameters
    ----------
    config : ModelConfig
        Architecture and evolution.

    References
    ----------
    .. [1] Wang et al., CVPR 2019, section 4.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        arch = ARCHITECTURES[config.architecture]
        self.encoder = Encoder(arch)
        channels = self.encoder.channels
        top = channels[-1]
        self.context: nn.Module = nn.Identity()
        if arch.pool_first:
            self.context, top = PyramidPooling(top, arch.widths[-1]), arch.widths[-1]
        self.neck = SkipFeatures(channels, top, arch, config.skip_features)
        self.phi_head = _branch(arch, 1)
        if config.evolves:
            self.motion_head = _branch(arch, 2)
            self.modulation_head = _branch(arch, 1)
            self.editor = MotionEditor(arch.neck, arch.editor, arch.editor_stride)
        self._initialise()

    def _initialise(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.endswith("editor.leave"):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        heads = [self.phi_head, *((self.motion_head, self.modulation_head) if self.config.evolves else ())]
        for head in heads:  # start near phi = 0, V = 0, m = 1/2: the evolution starts gentle
            last = head[-1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            nn.init.normal_(last.weight, std=1e-2)
            nn.init.zeros_(last.bias)

    def encode(self, image: Tensor, clicks: Tensor) -> Encoded:
        """Fields and features of normalised crops.

        Parameters
        ----------
        image : Tensor, shape (B, 3, H, W)
            Normalised crops.
        clicks : Tensor, shape (B, 1, H, W)
            Gaussians at the clicks; all zero for a box prompt (``DELSE*``).

        Returns
        -------
        Encoded
            Fields at the input's resolution in network pixels, float32.
        """
        if not self.config.extreme_points:
            clicks = torch.zeros_like(clicks)
        stages = self.encoder(torch.cat([image, clicks], dim=1))
        features = self.neck(self.context(stages[-1]), stages)
        size = image.shape[-2:]
        unit = image.shape[-1] / UNIT
        phi0 = _resize(self.phi_head(features).float(), size) * (unit if self.config.output == "delse" else 1)
        if not self.config.evolves:
            motion = phi0.new_zeros(phi0.shape[0], 2, *size)
            return Encoded(LevelSetFields(phi0, motion, torch.zeros_like(phi0)), features)
        motion = _resize(self.motion_head(features).float(), size) * unit
        modulation = torch.sigmoid(_resize(self.modulation_head(features).float(), size))
        if not self.config.modulation:
            modulation = torch.zeros_like(modulation)
        return Encoded(LevelSetFields(phi0, motion, modulation), features)

    def edit(self, encoded: Encoded, drags: Tensor) -> LevelSetFields:
        """The fields with the motion edited by drags.

        Parameters
        ----------
        encoded : Encoded
            What `encode` returned, with the drags' ends among the clicks.
        drags : Tensor, shape (B, 2, H, W)
            `drag_maps` of all drags of each object.
        """
        if not self.config.evolves:
            return encoded.fields
        motion = self.editor(encoded.fields, encoded.features, drags)
        return encoded.fields._replace(motion=motion)

    def evolve(self, fields: LevelSetFields, evolution: EvolutionConfig | None = None) -> list[Tensor]:
        """phi_0 .. phi_T; only phi_0 for a model that does not evolve."""
        if not self.config.evolves:
            return [fields.phi0]
        return evolve(*fields, evolution or self.config.evolution)

    def forward(self, image: Tensor, clicks: Tensor) -> list[Tensor]:
        """phi_0 .. phi_T of normalised crops; see `encode`."""
        return self.evolve(self.encode(image, clicks).fields)


def _branch(arch: Architecture, outputs: int) -> nn.Sequential:
    """One prediction branch: phi_0, V or m."""
    first = _conv_bn_relu(arch.neck, arch.head) if arch.pool_first else PyramidPooling(arch.neck, arch.head)
    return nn.Sequential(
        first, nn.Conv2d(arch.head, outputs, 3 if arch.pool_first else 1, padding=int(arch.pool_first))
    )


def click_map(points: Tensor, present: Tensor, size: int, sigma: float) -> Tensor:
    """Gaussians of height 1 at the clicks, joined by their maximum.

    Parameters
    ----------
    points : Tensor, shape (B, N, 2)
        (y, x) in network pixels.
    present : bool Tensor, shape (B, N)
        Which of them exist.
    size : int
        Side of the square map.
    sigma : float
        Network pixels.

    Returns
    -------
    Tensor, shape (B, 1, size, size)
    """
    axis = torch.arange(size, device=points.device, dtype=points.dtype)
    along_y = torch.exp(-((axis - points[..., :1]) ** 2) / (2 * sigma**2)) * present[..., None]
    along_x = torch.exp(-((axis - points[..., 1:]) ** 2) / (2 * sigma**2))
    return (along_y[..., :, None] * along_x[..., None, :]).amax(dim=1, keepdim=True)


def drag_maps(start: Tensor, end: Tensor, present: Tensor, size: int, *, signed: bool = True) -> Tensor:
    """Two Gaussians per drag p -> q, centred at p with sigma |q - p|, scaled by its direction (section 4.4).

    Parameters
    ----------
    start, end : Tensor, shape (B, K, 2)
        p and q, (y, x) in network pixels.
    present : bool Tensor, shape (B, K)
        Which drags exist.
    size : int
        Side of the square maps.
    signed : bool
        False scales by the absolute components, as the paper's text does.

    Returns
    -------
    Tensor, shape (B, 2, size, size)
        Sum over the drags of the (y, x) maps; 0 without drags.
    """
    way = end - start
    length = way.square().sum(dim=-1, keepdim=True).sqrt().clamp_min(1.0)
    direction = way / length
    axis = torch.arange(size, device=start.device, dtype=start.dtype)
    along_y = torch.exp(-((axis - start[..., :1]) ** 2) / (2 * length**2)) * present[..., None]
    along_x = torch.exp(-((axis - start[..., 1:]) ** 2) / (2 * length**2))
    return torch.einsum("bkc,bkh,bkw->bchw", direction if signed else direction.abs(), along_y, along_x)


def load_encoder_weights(model: Delse, state: Mapping[str, Tensor]) -> list[str]:
    """Load a classifier's weights (torchvision names) into the encoder; the click channel starts at zero.

    Parameters
    ----------
    model : Delse
        A model whose encoder has the classifier's architecture.
    state : mapping of str to Tensor
        Parameters of the classifier; its last layer is ignored.

    Returns
    -------
    list of str
        Names in ``state`` that were not used.

    Raises
    ------
    ValueError
        If a parameter is missing or has another shape.
    """
    own = model.encoder.state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in state:
            raise ValueError(f"encoder weights lack {name!r}; use those of the same architecture")
        given = state[name].to(tensor)
        if name == "conv1.weight" and given.shape[1] == 3:
            given = torch.cat([given, torch.zeros_like(given[:, :1])], dim=1)
        if given.shape != tensor.shape:
            raise ValueError(f"encoder weight {name!r} has shape {tuple(given.shape)}, expected {tuple(tensor.shape)}")
        own[name] = given
    model.encoder.load_state_dict(own)
    return sorted(set(state) - set(own))


def config_from_dict(cls: type[_Config], values: Mapping[str, Any], where: str = "") -> _Config:
    """Build a config dataclass from plain data (JSON, TOML), nested configs included.

    Raises
    ------
    ValueError
        If a key is unknown (the message names it and the known ones), a value has the wrong type or a nested config
        is none.
    """
    known: dict[str, Any] = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"unknown key {where + key!r}; {cls.__name__} knows {', '.join(known)}")
        inner = nested(known[key])
        if inner is not None:
            if not isinstance(value, Mapping):
                raise ValueError(f"{where + key!r} must hold the keys of {inner.__name__}, got {value!r}")
            built[key] = config_from_dict(inner, value, f"{where}{key}.")
        else:
            check_value(where + key, value, hints[key])
            built[key] = _tuples(value)
    return cls(**built)


def _tuples(value: Any) -> Any:
    """Lists as tuples, as frozen settings hold them."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
