"""What of a text a base reads: its text encoder has a window of so many tokens, and what lies beyond is cut off. No torch."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tav.bases import local_folder, parse
from tav.errors import InvalidConfig

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_SHOWN = 200
"""Characters of an unread text that a refusal quotes."""


class Reader:
    """A base's tokenizer and the window of its text encoder. Threads may share it: a tokenizer changes while it cuts and pads.

    Args:
        tokenizer: of the base.
        window: tokens, with the two that begin and end every text.
    """

    def __init__(self, tokenizer: CLIPTokenizer, window: int) -> None:
        self.tokenizer, self.window = tokenizer, window
        self._lock = threading.Lock()

    def read(self, texts: list[str]) -> list[list[int]]:
        """Return the tokens of each text that the encoder reads, a window's full."""
        with self._lock:
            tokens = self.tokenizer(texts, padding="max_length", max_length=self.window, truncation=True)
        ids: list[list[int]] = tokens.input_ids
        return ids

    def unread(self, text: str) -> str:
        """Return the end of a text that the encoder does not read, from the first word that it does not read whole; empty
        where it reads all."""
        with self._lock:
            tokens = self.tokenizer(text, return_offsets_mapping=True, verbose=False)
        if len(tokens.input_ids) <= self.window:
            return ""
        begin: int = tokens.offset_mapping[self.window - 1][0]  # of the first one not read: the last place ends the text
        while begin and not text[begin - 1].isspace():
            begin -= 1
        return text[begin:].strip()

    def unread_of(self, texts: Mapping[str, str | None]) -> dict[str, str]:
        """Return the unread ends of several texts, without those that are read whole, under the same names."""
        ends = {name: self.unread(text) for name, text in texts.items() if text}
        return {name: end for name, end in ends.items() if end}


def texts_of(caption: str | None, prompts: Sequence[str]) -> dict[str, str | None]:
    """Return a job's texts by name."""
    return {"caption": caption, **{f"validation_prompts.{number}": prompt for number, prompt in enumerate(prompts)}}


def refusal(unread: Mapping[str, str]) -> InvalidConfig | None:
    """Say why texts may not be cut, where some would be: the answer to `truncate: "error"`."""
    if not unread:
        return None
    ends = ", ".join(f"of {name} it would not read {end[:_SHOWN]!r}" for name, end in unread.items())
    return InvalidConfig(f"what is written is longer than the base reads, {ends}: use fewer words, or leave truncate out")


@lru_cache(maxsize=32)
def reader_of(name: str) -> Reader | None:
    """Make the reader of a base whose tokenizer lies on this machine, as a folder or in the hub's cache; None: it lies
    elsewhere."""
    folder = local_folder(name) or _cached(name)
    if folder is None or not (folder / "tokenizer" / "vocab.json").is_file():
        return None
    from transformers import CLIPTokenizer  # a second or two, for those who ask

    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    return Reader(tokenizer, window_of(tokenizer, config.get("max_position_embeddings", 77)))


def window_of(tokenizer: CLIPTokenizer, positions: int) -> int:
    """Return the tokens that an encoder with so many positions reads; a tokenizer may know no limit, or a smaller one."""
    return min(int(tokenizer.model_max_length), positions)


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        repo, revision = parse(name)
        needed = ["tokenizer/*", "text_encoder/config.json"]
        return Path(snapshot_download(repo, revision=revision, allow_patterns=needed, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
