"""Building an image backbone: its network, its weights, its segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tl_core import (
    Backbone,
    BackboneSpec,
    Identity,
    Prepared,
    State,
    UserError,
    drawn_digest,
    find_weights,
    hub_folder,
    load_strict,
    package_folder,
    random_weights,
    read_weights,
    weights_digest,
)
from tl_image import jpeg, timm_networks, torchvision_networks
from tl_image.class_token import LastBlock
from tl_image.folders import folder_network
from tl_image.loader import ImageLoader
from tl_image.network import Layout, Network, Segments, normalised
from tl_image.preprocessing import Preprocessing

HUB_FILES = ("config.json", "preprocessor_config.json", "model.safetensors", "model-*.safetensors",
             "model.safetensors.index.json")  # fmt: skip


class ImageBackbone(Backbone):
    """An image encoder; its windows are whole images, `x` uint8 [3, H, W]. The first segment normalises them."""

    def __init__(
        self,
        segments: Segments,
        feature_dim: int,
        identity: Identity,
        preprocessing: Preprocessing,
        layout: Layout,
    ) -> None:
        super().__init__(segments, feature_dim, identity)
        self.preprocessing = preprocessing
        self.layout = layout
        self.need = preprocessing.need
        self._last = [module for module in self.modules() if isinstance(module, LastBlock)]

    def prepare(self, decoded: Any) -> Prepared:
        """decoded: uint8 [H, W, 3]. One window."""
        return Prepared(({"x": self.preprocessing.apply(decoded)},))

    def collate(self, windows: Sequence[State]) -> State:
        """All windows have the network's input size."""
        return {"x": torch.stack([window["x"] for window in windows])}

    def batch_size(self, bucket: int) -> int:
        """Half batches for large inputs; a CPU is as fast with 8 images as with 32."""
        height, width = self.preprocessing.size
        return 8 if height * width <= 256 * 256 else 4

    def example(self) -> State:
        """Coloured stripes."""
        height, width = self.preprocessing.size
        return {"x": (torch.arange(3 * height * width) % 251).to(torch.uint8).reshape(3, height, width)}

    @contextmanager
    def embedding_only(self) -> Iterator[None]:
        try:
            for block in self._last:
                block.alone = True
            yield
        finally:
            for block in self._last:
                block.alone = False

    def pooled(self, state: State) -> Tensor:
        """The mean over the places of the image."""
        x = state["x"]
        if x.ndim == 4 and self.layout.channels_last:
            return x.float().mean(dim=(1, 2))  # [B, H, W, C] -> [B, C]
        if x.ndim == 3:
            x = x[:, self.layout.prefix :]  # [B, T, D]
        return super().pooled({"x": x})

    def spatial(self, state: State) -> Tensor | None:
        """Maps as they are, tokens where their patches lie; None for tokens that make up no grid."""
        x = state["x"]
        if x.ndim == 4:
            return x.permute(0, 3, 1, 2) if self.layout.channels_last else x  # [B, H, W, C] -> [B, C, H, W]
        if x.ndim != 3:
            return None
        x = x[:, self.layout.prefix :].transpose(1, 2)  # [B, T, D] -> [B, D, patches]
        height, width = self.preprocessing.size
        rows = round((x.shape[2] * height / width) ** 0.5)
        return x.reshape(*x.shape[:2], rows, -1) if rows and x.shape[2] % rows == 0 else None

    def places(self, decoded: Any) -> Sequence[Any]:
        """The part of the picture that goes in, as Preprocessing.seen() gives it."""
        return [self.preprocessing.seen(*decoded.shape[:2])]


def build(spec: BackboneSpec, random_seed: int | None = None) -> ImageBackbone:
    """The backbone of a spec, with the weights that it names or with random ones.

    options["architecture"] (`timm/NAME`, `torchvision/NAME`) names the network; without it the config.json beside
    the weights does. Random weights of a named network need no files and no network connection. Raises UserError
    where weights are missing, unreadable, not those expected, or of another architecture.
    """
    named = spec.options.get("architecture")
    folder, revision = None, None
    if spec.source == "hub" and not (named and random_seed is not None):
        folder, revision = hub_folder(spec.location, spec.revision, allow=HUB_FILES)
    elif spec.source == "folder":
        folder = Path(spec.location)
    elif spec.source == "package":
        folder = package_folder(spec.location)
    beside = folder or Path(spec.location).parent
    network = named_network(named, Path(spec.location).name) if named else folder_network(beside)
    if network is None:
        raise UserError(f"{beside} holds no image backbone: its config.json names no image architecture")
    if random_seed is not None:
        model = random_weights(network.create, random_seed)
        weights = drawn_digest(model)
    else:
        files = [Path(spec.location)] if folder is None else find_weights(folder)
        weights = _verified_digest(spec, files)
        model = random_weights(network.create, 0)  # overwritten, but must not advance the caller's generator
        load_strict(model, network.adapt(model, read_weights(files)), spec.name)
    return assemble(network, model, weights, revision)


def named_network(name: str, weights: str) -> Network:
    """The network of `timm/NAME` or `torchvision/NAME`; weights: the weights file's name."""
    library, _, architecture = name.partition("/")
    if library == "timm":
        return timm_networks.by_name(architecture)
    return torchvision_networks.by_name(architecture, weights)


def assemble(network: Network, model: nn.Module, weights: str, revision: str | None) -> ImageBackbone:
    """Cut a loaded model into segments and run an empty image through them for the embedding's width."""
    layout = network.layout(model.eval())
    segments = normalised(network.split(model), network.preprocessing)
    probe: State = {"x": torch.zeros(1, 3, *network.preprocessing.size, dtype=torch.uint8)}
    try:
        with torch.inference_mode():
            for _, segment in segments:
                probe = segment(probe)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        height, width = network.preprocessing.size
        raise UserError(
            f"{network.architecture} can't embed a {height}x{width} RGB image: {str(error).splitlines()[0]}; "
            "check the input size and model_args in config.json"
        ) from error
    identity = Identity(
        weights=weights,
        preprocessing=_facts(network.preprocessing),
        architecture=network.architecture,
        revision=revision,
    )
    return ImageBackbone(segments, probe["x"].shape[-1], identity, network.preprocessing, layout)


def _facts(preprocessing: Preprocessing) -> Mapping[str, Any]:
    """What decides the input's values: the numbers, and what decodes and resizes."""
    import PIL

    return {
        **preprocessing.facts,
        "loader": ImageLoader.version,
        "pillow": PIL.__version__,
        "jpeg": jpeg.rule(preprocessing.need),
        "resampler": preprocessing.resizer,
    }


def _verified_digest(spec: BackboneSpec, files: Sequence[Path]) -> str:
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise UserError(f"no such weights file: {', '.join(missing)}")
    digest = weights_digest(files)
    if spec.sha256 and digest != spec.sha256:
        remedy = "reinstall the package that brings them" if spec.source == "package" else "fetch the file again"
        raise UserError(
            f"the weights of {spec.name} are not those expected: sha256 {digest[:16]}..., expected "
            f"{spec.sha256[:16]}...; {remedy}"
        )
    return digest
