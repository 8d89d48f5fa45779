"""The inflated network against the base and against naive definitions."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from tav import Base, inflate
from tav.attention import project_out, spatio_temporal_attention
from tav.inflation import VideoUNet, is_tuned


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 7), (5, 12)])
def test_untuned_network_in_frame_mode_equals_the_base_per_frame(base: Base, height: int, width: int) -> None:
    net = inflate(base.unet, attention="frame", group_norm="frame")
    latents, text = torch.randn(2, 4, 3, height, width), torch.randn(2, 7, 32)
    t = torch.tensor([7, 801])
    with torch.no_grad():
        video = net(latents, t, text)
        for frame in range(3):
            image = base.unet(latents[:, :, frame], t, text).sample
            torch.testing.assert_close(video[:, :, frame], image, atol=1e-5, rtol=0)


def test_video_group_norm_is_the_five_dimensional_group_norm(base: Base) -> None:
    net = inflate(base.unet, group_norm="video")
    norm = net.mid_block.resnets[0].norm1
    video = torch.randn(2, norm.num_channels, 5, 4, 4) * torch.arange(1, 6)[:, None, None]  # frames of unlike scale
    net.context.num_frames = 5
    folded = norm(video.transpose(1, 2).flatten(0, 1))
    expected = torch.nn.functional.group_norm(video, norm.num_groups, norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(folded.unflatten(0, (2, 5)).transpose(1, 2), expected)
    assert net.down_blocks[0].attentions[0].norm.frames_together == 1  # per frame at a transformer's entrance
    assert net.conv_norm_out.frames_together == 5


@pytest.mark.parametrize("mode", ["sparse_causal", "causal", "full", "frame"])
@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_attention_modes_equal_a_loop_over_frames(mode: str, num_frames: int) -> None:
    torch.manual_seed(0)
    attn = Attention(32, heads=4, dim_head=8)
    clips = torch.randn(2, num_frames, 9, 32)
    answering = {
        "sparse_causal": lambda i: [0, max(i - 1, 0)],
        "causal": lambda i: list(range(i + 1)),
        "full": lambda i: list(range(num_frames)),
        "frame": lambda i: [i],
    }[mode]
    result = spatio_temporal_attention(attn, clips.flatten(0, 1), num_frames, mode).unflatten(0, (2, num_frames))
    for b, clip in enumerate(clips):
        for i in range(num_frames):
            source = torch.cat([clip[j] for j in answering(i)])
            q, k, v = attn.to_q(clip[i]), attn.to_k(source), attn.to_v(source)
            heads = [
                torch.softmax(q[:, s] @ k[:, s].T / 8**0.5, dim=-1) @ v[:, s]
                for s in (slice(h * 8, h * 8 + 8) for h in range(4))
            ]
            torch.testing.assert_close(result[b, i], project_out(attn, torch.cat(heads, -1)), atol=1e-5, rtol=1e-5)


def test_frozen_parameters_are_shared_with_the_base_and_tuned_ones_are_not(base: Base) -> None:
    net, image = inflate(base.unet), dict(base.unet.named_parameters())
    for name, parameter in net.named_parameters():
        if name in image:
            assert (parameter.data_ptr() == image[name].data_ptr()) != is_tuned(name), name


def test_sd14_has_112_tuned_tensors_of_74354880_parameters_with_the_reference_names() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)  # SD1.4's configuration is the class's default otherwise
        net: VideoUNet = VideoUNet.from_config(unet.config)
        net._inflate(inflated_context())
    tuned = {name: p for name, p in net.named_parameters() if is_tuned(name)}
    assert len(tuned) == 112
    assert sum(p.numel() for p in tuned.values()) == 74_354_880
    assert sum(p.numel() for p in net.parameters()) == 909_120_004
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    new = {name.removeprefix(f"{block}.") for name, _ in net.named_parameters() if name.startswith(block)} - {
        name.removeprefix(f"{block}.") for name, _ in unet.named_parameters()
    }
    assert new == {
        *(f"attn_temp.{part}.weight" for part in ("to_q", "to_k", "to_v")),
        "attn_temp.to_out.0.weight",
        "attn_temp.to_out.0.bias",
        "norm_temp.weight",
        "norm_temp.bias",
    }


def inflated_context():
    from tav.attention import VideoContext

    return VideoContext()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 12), (9, 7)])
def test_any_frame_count_and_size_passes(base: Base, height: int, width: int) -> None:
    net = inflate(base.unet)
    for num_frames in (1, 2, 7):
        latents = torch.randn(1, 4, num_frames, height, width)
        with torch.no_grad():
            assert net(latents, 500, torch.randn(1, 7, 32)).shape == latents.shape
