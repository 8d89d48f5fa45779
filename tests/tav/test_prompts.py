"""What of a text a base reads."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

import tav
from tav.prompts import Reader, reader_of, refusal, window_of

LONG = "professional Cinematic high   quality footage shot on a tripod with soft light, of a blue box moving on snow"
TEXTS = [
    LONG,
    "a red ball rolls over sand",
    "",
    "x" * 1000,
    "(masterpiece:1.4), ((best quality)), a (blue:1.2) box on [snow]",
    "ein Möwenschwarm über dem Öresund, Ångström für Ångström",
    "🚀 " * 40,
    "a box , , , . . . ! ! ? ? - - - - on snow and on sand",
]


@pytest.fixture(scope="module")
def base() -> tav.Base:
    return tav.Base.load("offline")


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:20])
@pytest.mark.filterwarnings("ignore:the end of a prompt")
def test_what_is_not_read_changes_nothing_and_what_is_read_is_read_whole(base: tav.Base, text: str) -> None:
    unread = base.reader.unread(text)
    assert text.rstrip().endswith(unread)
    read = text.rstrip()[: len(text.rstrip()) - len(unread)]
    assert base.reader.unread(read) == ""
    ids, beginning = (base.tokenizer(words).input_ids[1:-1] for words in (text, read))
    assert ids[: len(beginning)] == beginning and len(beginning) <= base.reader.window - 2
    if unread:
        assert torch.equal(base.encode_text([text]), base.encode_text([text + " and something else altogether"]))


@pytest.mark.filterwarnings("error")
def test_a_text_that_is_cut_warns_with_what_is_not_read_and_one_that_fits_does_not(base: tav.Base) -> None:
    base.encode_text(["a red ball rolls", ""])
    with pytest.raises(UserWarning, match="of a blue box moving on snow"):
        base.encode_text([LONG])


def test_a_machine_that_has_the_base_can_tell_without_torch(base: tav.Base) -> None:
    reader = reader_of("offline")
    assert reader is not None and reader.unread(LONG) == base.reader.unread(LONG) != ""
    assert reader_of("nobody/has-this-here") is None and reader_of("/no/such/folder") is None
    code = "import sys; from tav.prompts import reader_of; reader_of('offline').unread('x'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


class Unlimited:
    model_max_length = int(1e30)


def test_an_encoder_has_a_window_where_its_tokenizer_knows_no_limit(base: tav.Base) -> None:
    tokenizer: Any = Unlimited()
    assert window_of(tokenizer, 77) == 77 and window_of(base.tokenizer, 77) == 24


def test_a_refusal_quotes_what_would_not_be_read(base: tav.Base) -> None:
    reader = Reader(base.tokenizer, base.reader.window)
    unread = reader.unread_of({"caption": "a red ball", "validation_prompts.1": LONG, "none": None})
    assert list(unread) == ["validation_prompts.1"]
    assert "of validation_prompts.1 it would not read" in str(refusal(unread)) and "moving on snow" in str(refusal(unread))
    assert refusal({}) is None
