"""fp16 and bf16: where they suffice, where they are left, and how early their overflow is seen."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch.nn.functional import scaled_dot_product_attention

import tav
from tav import Base, Clip, Delta, InvertConfig, Latents, Progress, SampleConfig, TuneConfig
from tav.attention import attend
from tav.errors import NanLoss
from tav.inflation import inflate
from tav.precision import FiniteWatch
from tav.tuning import AdamWEngine
from tests.tav.conftest import write_random_base

SAMPLE = SampleConfig(num_inference_steps=5, guidance_scale=2)
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def delta(base: Base, clip: Clip) -> Delta:
    return tav.tune(base, clip, TuneConfig(steps=1))


@pytest.fixture(scope="module")
def noise(base: Base, clip: Clip, delta: Delta) -> Latents:
    return tav.invert(base, clip, delta, InvertConfig(num_inference_steps=2))


@pytest.fixture(scope="module")
def loud_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose activations leave fp16's range behind its first convolution, while its weights do not."""
    folder = write_random_base(tmp_path_factory.mktemp("loud"), seed=0)
    base = Base.load(str(folder))
    with torch.no_grad():
        base.unet.conv_in.weight.mul_(60_000 / base.unet.conv_in.weight.abs().max())
        base.unet.conv_in.bias.fill_(60_000)
    base.unet.save_pretrained(folder / "unet")
    return folder


def of(base: Base, made: Delta | Latents) -> Delta | Latents:
    """The same, as if made with `base`."""
    origin = made.meta.origin.model_copy(update={"fingerprint": base.fingerprint})
    return replace(made, meta=made.meta.model_copy(update={"origin": origin}))


@pytest.mark.parametrize("phase", ["sampling", "inverting", "tuning"])
@pytest.mark.parametrize("dtype", HALVES)
def test_an_overflow_fails_in_the_first_step_and_says_what_to_try(
    loud_folder: Path, clip: Clip, delta: Delta, noise: Latents, phase: str, dtype: torch.dtype
) -> None:
    loud, seen = Base.load(str(loud_folder), dtype=dtype), list[Progress]()

    def run() -> None:
        if phase == "sampling":
            tav.sample(loud, "blue", delta=of(loud, delta), latents=of(loud, noise), config=SAMPLE, on_step=seen.append)
        elif phase == "inverting":
            tav.invert(loud, clip, of(loud, delta), InvertConfig(num_inference_steps=5), on_step=seen.append)
        else:
            tav.tune(loud, clip, TuneConfig(steps=5), on_step=seen.append)

    if dtype == torch.bfloat16:
        run()
        assert len(seen) == 5
    else:
        with pytest.raises(NanLoss, match=r"step 1.*bf16 or fp32"):
            run()
        assert seen == []


@pytest.mark.parametrize(("steps", "heard"), [(5, 3), (2, None)])
def test_without_waiting_an_overflow_is_heard_of_one_step_later(steps: int, heard: int | None) -> None:
    def run() -> Iterator[int]:
        watch = FiniteWatch("sampling", torch.float16, at_once=False)
        for step in range(1, steps + 1):
            watch.see(step, torch.tensor([1.0, torch.inf if step == 2 else 0.0]))
            yield step
        watch.end()

    seen = list[int]()
    with pytest.raises(NanLoss, match="step 2"):
        seen.extend(run()) if heard is None else [seen.append(step) for step in run()]
    assert heard is None or max(seen) == heard - 1


def test_the_first_step_is_looked_at_before_anything_goes_on() -> None:
    with pytest.raises(NanLoss, match="step 1"):
        FiniteWatch("sampling", torch.float16, at_once=False).see(1, torch.tensor(torch.nan))


def test_gradients_that_overflow_fp16_at_every_step_end_the_work(base_folder: Path) -> None:
    net = inflate(Base.load(str(base_folder), dtype=torch.float16).unet)
    parameter = next(p for name, p in net.named_parameters() if ".attn_temp.to_q." in name)
    parameter.requires_grad_(True)
    engine = AdamWEngine(net, TuneConfig())
    before = parameter.detach().clone()
    for _ in range(16):  # the loss scale, 2^16 at first, is halved each time
        engine.step((parameter * torch.inf).sum())
    with pytest.raises(NanLoss, match="bf16 or fp32"):
        engine.step((parameter * torch.inf).sum())
    assert torch.equal(parameter.detach(), before)


def test_a_vae_that_overflows_fp16_stays_in_fp32(base_folder: Path, clip: Clip, tmp_path: Path) -> None:
    half = Base.load(str(base_folder), dtype=torch.float16)  # force_upcast is the VAE's default
    assert (half.vae.dtype, half.unet.dtype) == (torch.float32, torch.float16)
    assert Base.load(str(base_folder), dtype=torch.bfloat16).vae.dtype == torch.bfloat16
    folder = Path(shutil.copytree(base_folder, tmp_path / "base"))
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"force_upcast": False}))
    whole = Base.load(str(folder), dtype=torch.float16)
    assert whole.vae.dtype == torch.float16
    with torch.no_grad():
        whole.vae.decoder.conv_in.weight.fill_(6e4)
    with pytest.raises(NanLoss, match="force_upcast"):
        whole.decode_latents(torch.ones(1, 4, 2, 8, 8))
    with torch.no_grad():
        half.vae.decoder.conv_in.weight.fill_(6e4)
    assert half.decode_latents(torch.ones(1, 4, 2, 8, 8)).shape == (2, 16, 16, 3)


@pytest.mark.parametrize("dtype", HALVES)
def test_upcast_attention_computes_in_fp32(dtype: torch.dtype) -> None:
    attn = Attention(32, heads=2, dim_head=16, upcast_attention=True)  # smaller heads are always computed in fp32 on a CPU
    q, k, v = (torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(3))
    heads = [t.float().unflatten(-1, (2, -1)).transpose(1, 2) for t in (q, k, v)]
    exact = scaled_dot_product_attention(*heads, scale=attn.scale).transpose(1, 2).flatten(2).to(dtype)
    assert torch.equal(attend(attn, q, k, v), exact)
    attn.upcast_attention = False
    assert not torch.equal(attend(attn, q, k, v), exact)
