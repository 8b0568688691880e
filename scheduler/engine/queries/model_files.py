"""What the folder of a transformers model says of its shape; reads headers only, never weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scheduler.core.memory_estimate import ModelShape

MAX_HEADER_BYTES = 100_000_000
"""As the safetensors library has it."""
_METADATA = "__metadata__"


def read_shape(folder: Path) -> ModelShape:
    """Raises ValueError, in words, when the folder does not tell.  Reads files, so call it from a thread."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        tensors = {
            name: shape for file in _files(folder) for name, shape in _tensors(file) if name != _METADATA
        }
    except OSError as error:
        raise ValueError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} is not as expected: {error}") from error
    if not tensors:
        raise ValueError(f"{folder} has no .safetensors file")
    return ModelShape(
        tensors=tensors,
        layers=_number(config, "num_hidden_layers", "n_layer", "num_layers"),
        width=_number(config, "hidden_size", "n_embd", "d_model"),
        vocabulary=_number(config, "vocab_size"),
    )


def _files(folder: Path) -> list[Path]:
    """The parts that the index names; without an index, the one file.  Others may be copies of the same weights."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        parts = json.loads(index.read_bytes())["weight_map"].values()
        return sorted({folder / Path(part).name for part in parts})
    return [file for file in [folder / "model.safetensors"] if file.is_file()]


def _tensors(file: Path) -> list[tuple[str, tuple[int, ...]]]:
    """The header: eight bytes that say how long it is, then JSON with the shape of each tensor."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        if size > MAX_HEADER_BYTES:
            raise ValueError(f"the header of {file.name} would be {size:,} bytes long")
        header = json.loads(opened.read(size))
    return [(name, tuple(map(int, one.get("shape", ())))) for name, one in header.items()]


def _number(config: dict[str, Any], *names: str) -> int:
    inner = config.get("text_config")  # where a model reads images too
    for each in (config, inner if isinstance(inner, dict) else {}):
        for name in names:
            if isinstance(value := each.get(name), int):
                return value
    raise ValueError(f"config.json does not say {names[0]}")
