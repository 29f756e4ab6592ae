"""Reading pretrained weights: hub folders, local folders and files, without ever unpickling code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tl_core.errors import UserError
from tl_core.types import BackboneSpec

M = TypeVar("M", bound=nn.Module)

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_PREFERRED = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "model.pth", "model.pt")


def weights_digest(files: Iterable[Path]) -> str:
    """sha256 hex of the weights: of the file's bytes where there is one, of the files' digests where several."""
    digests = []
    for path in sorted(files):
        with path.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def find_weights(folder: Path) -> list[Path]:
    """The weights files of a model folder: the shards of its index, else the one file by its usual name.

    Raises UserError where there is none, or several and none has a usual name.
    """
    for index in (folder / "model.safetensors.index.json", folder / "pytorch_model.bin.index.json"):
        if index.is_file():
            table = read_json(index).get("weight_map")
            if not isinstance(table, dict) or not table:
                raise UserError(f"unreadable {index}: expected a weight_map; fetch the file again")
            names = sorted({str(name) for name in table.values()})
            shards = [folder / name for name in names if Path(name).name == name]
            missing = [p.name for p in shards if not p.is_file()]
            if missing or len(shards) != len(names):
                raise UserError(f"{index} names weights that are not in the folder: {', '.join(missing or names)}")
            return shards
    for name in _PREFERRED:
        if (folder / name).is_file():
            return [folder / name]
    found = sorted(p for p in folder.glob("*") if p.suffix in WEIGHT_SUFFIXES)
    if len(found) == 1:
        return found
    if not found:
        raise UserError(f"no weights in {folder}: expected model.safetensors (or .bin/.pth) beside config.json")
    raise UserError(f"several weights in {folder} ({', '.join(p.name for p in found)}); name one as FOLDER/FILE")


def read_weights(files: Path | Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of one or more weights files, in float32 where they are floating point.

    Safetensors, or PyTorch files read with weights_only=True. Raises UserError where a file can't be read.
    """
    tensors: dict[str, Tensor] = {}
    for path in [files] if isinstance(files, Path) else files:
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                loaded: Any = load_file(path)
            else:
                loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"unreadable weights {path}: {_first_line(error)}; fetch the file again") from error
        for key in ("state_dict", "model"):
            if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
                loaded = loaded[key]
        if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
            raise UserError(f"unreadable weights {path}: not a table of tensors; expected a state dict")
        tensors.update(loaded)
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def load_strict(module: M, tensors: dict[str, Tensor], name: str, ignore: Sequence[str] = ()) -> M:
    """Load tensors into module, refusing any that are missing, unexpected or of another shape.

    ignore: name prefixes that may be missing or left over (a classifier that the backbone drops).
    Raises UserError, naming `name` and the first differences.
    """
    expected = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    skip = tuple(ignore)

    def counts(key: str) -> bool:
        return not (skip and key.startswith(skip)) and not key.endswith("num_batches_tracked")

    faults = [f"missing {k}" for k in expected if k not in tensors and counts(k)]
    faults += [f"unexpected {k}" for k in tensors if k not in expected and counts(k)]
    faults += [
        f"{k} is {list(tensors[k].shape)}, expected {list(shape)}"
        for k, shape in expected.items()
        if k in tensors and tuple(tensors[k].shape) != shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(
            f"the weights of {name} are of another architecture: {'; '.join(faults[:3])}{more}; "
            "check the architecture in config.json"
        )
    module.load_state_dict({k: v for k, v in tensors.items() if k in expected}, strict=False)
    return module


def random_weights(build: Callable[[], M], seed: int) -> M:
    """Run build() with torch's generator seeded and restored afterwards: the same random network every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def drawn_digest(module: nn.Module) -> str:
    """`random-` and the sha256 of a network's own tensors, for weights that come from no file.

    By value, not by seed: another version of a library may draw other weights from the same seed.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return f"random-{digest.hexdigest()}"


def hub_folder(repo: str, revision: str | None = None, *, allow: Sequence[str] = ()) -> tuple[Path, str]:
    """Download a hub repository's files (from the local hub cache where they are) and return (folder, commit).

    allow: glob patterns of the files wanted. Raises UserError, with what to do offline, where it can't be had.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = list(allow) or ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:
        offline = constants.HF_HUB_OFFLINE and isinstance(error, LocalEntryNotFoundError)
        reason = "HF_HUB_OFFLINE is set and the hub's cache has no copy" if offline else _first_line(error)
        at = f" at revision {revision[:12]}" if revision else ""
        raise UserError(
            f"can't download {repo}{at} from the hub: {reason}; without network give a local folder with "
            "its weights: --backbone FOLDER"
        ) from error
    return folder, folder.name


def package_folder(location: str) -> Path | None:
    """A folder inside an installed package (`package/inner`), found without running the package's code.

    None where the package is not installed or has no such folder.
    """
    name, _, inner = location.partition("/")
    found = importlib.util.find_spec(name)
    places = list(found.submodule_search_locations or ()) if found else []
    folder = Path(places[0], inner) if places else None
    return folder if folder is not None and folder.is_dir() else None


def weights_here(spec: BackboneSpec) -> bool:
    """True where a backbone's weights are on this machine, so that `build()` needs no network."""
    if spec.offline is not None:
        return spec.offline(spec)
    if spec.source == "file":
        return Path(spec.location).expanduser().is_file()
    if spec.source == "package" and "/" not in spec.location:  # the package itself knows where its weights lie
        return importlib.util.find_spec(spec.location.partition(".")[0]) is not None
    folder = folder_here(spec)
    try:
        return folder is not None and bool(find_weights(folder))
    except UserError:
        return False


def folder_here(spec: BackboneSpec) -> Path | None:
    """The folder on this machine that a backbone's weights lie in (or would), None where there is none.

    A weights file's own folder for the source `file`; for the hub its cache's copy.
    """
    if spec.offline is not None or (spec.source == "package" and "/" not in spec.location):
        return None  # a place that only its library knows
    if spec.source == "file":
        return Path(spec.location).expanduser().parent
    if spec.source == "folder":
        return Path(spec.location).expanduser()
    return package_folder(spec.location) if spec.source == "package" else _cached(spec.location, spec.revision)


def _cached(repo: str, revision: str | None) -> Path | None:
    """The hub cache's copy of a repository, None where it has none or the hub's library is not installed."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):  # the last: no valid name of a repository
        return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError where the file is missing or no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"unreadable {path}: {_first_line(error)}") from error
    if not isinstance(value, dict):
        raise UserError(f"unreadable {path}: expected a JSON object, found {type(value).__name__}")
    return value


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
