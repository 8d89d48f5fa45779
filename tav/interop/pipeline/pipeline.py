"""Samples edited prompts with one clip's motion (Tune-A-Video, arXiv 2212.11565): a diffusers pipeline.

pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
video = pipe("spider man is skiing", output_type="pil").frames[0]
diffusers.utils.export_to_video(video, "spider.mp4", fps=pipe.clip.config.fps)
"""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.utils import BaseOutput, logging
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor

logger = logging.get_logger(__name__)

_FRAMES_AT_ONCE = 8  # frames through the VAE in one call: its activations are the largest of all


@dataclass
class TunedVideoOutput(BaseOutput):
    """`frames`: one video in the `output_type` asked for."""

    frames: Any


class TunedVideoPipeline(DiffusionPipeline):
    """A text-to-image base and one clip tuned on it."""

    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(self, vae, text_encoder, tokenizer, unet, scheduler, clip):
        super().__init__()
        clip.attach(unet)
        text_encoder.to(dtype=unet.dtype)  # transformers loads the precision that is stored, diffusers the one asked for
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=DDIMScheduler.from_config(scheduler.config),
            clip=clip,
        )
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor)

    @torch.no_grad()
    def __call__(
        self,
        prompt,
        negative_prompt="",
        num_inference_steps=None,
        guidance_scale=None,
        strength=None,
        feature_injection=None,
        guidance_interval=None,
        use_inverted_latents=True,
        noise_blend=0.0,
        num_frames=None,
        height=None,
        width=None,
        generator=None,
        output_type="pil",
        return_dict=True,
        callback_on_step_end=None,
    ):
        """Sample one video: DDIM, classifier-free guidance.

        Args:
            prompt: the edited prompt.
            negative_prompt: what guidance leads away from.
            num_inference_steps: left out, the base's recommended one, as for `guidance_scale` (1 turns it off),
                `strength` (below 1, the first steps retrace the inversion, which fixes where things are),
                `feature_injection` (share of the first steps that take over the clip's features, so that things stay) and
                `guidance_interval` (from and until which share of the steps there is guidance).
            use_inverted_latents: start from the clip's inverted noise, which keeps its motion.
            noise_blend: how much of the inverted noise's variance is replaced by fresh noise, 0 … 1.
            num_frames: without inverted latents; left out, the clip's, as for `height` and `width`, in pixels.
            generator: of the fresh noise.
            output_type: `pil`, `np`, `pt` or `latent`.
            return_dict: an object with `frames`, or a tuple of them.
            callback_on_step_end: called with the pipeline, the step's number, the timestep and `{"latents": …}`.
        """
        clip, device = self.clip.config, self._execution_device
        steps = clip.num_inference_steps if num_inference_steps is None else num_inference_steps
        guidance = clip.guidance_scale if guidance_scale is None else guidance_scale
        strength = clip.strength if strength is None else strength
        injection = clip.feature_injection if feature_injection is None else feature_injection
        interval = clip.guidance_interval if guidance_interval is None else guidance_interval
        device_of_noise = generator.device if generator else torch.device("cpu")
        if use_inverted_latents:
            if self.clip.latents is None:
                raise ValueError("This clip came without inverted latents: pass use_inverted_latents=False.")
            if num_frames or height or width:
                raise ValueError("The inverted latents have their frames and size: pass use_inverted_latents=False to choose.")
            x = self.clip.latents.to(device, torch.float32)
            if noise_blend > 0:
                noise = randn_tensor(x.shape, generator=generator, device=device_of_noise).to(device)
                x = (1 - noise_blend) ** 0.5 * x + noise_blend**0.5 * noise
            # They hold the noise of the timestep at which their inversion ended: only from there do they lead back to the clip.
            timesteps = self._timesteps(steps, start=self._timesteps(clip.inversion_steps)[0])
        else:
            pixels = (height or clip.size[1], width or clip.size[0])
            if any(side % self.vae_scale_factor for side in pixels):
                raise ValueError(f"Height and width must be multiples of {self.vae_scale_factor}, not {pixels}.")
            side = (side // self.vae_scale_factor for side in pixels)
            shape = (1, self.unet.config.in_channels, num_frames or clip.num_frames, *side)
            x = randn_tensor(shape, generator=generator, device=device_of_noise).to(device)
            timesteps = self._timesteps(steps)
        shares = (1 - strength, injection) if use_inverted_latents else (0, 0)
        retraced, injected = (round(share * len(timesteps)) for share in shares)
        guided = range(*(round(share * len(timesteps)) for share in interval)) if guidance > 1 else range(0)
        source = self.clip.latents.to(x) if use_inverted_latents else x
        self.clip.video_length = x.shape[2]
        empty = self._encode([""])
        text = self._encode([negative_prompt, prompt] if guided else [prompt])
        with self.progress_bar(total=len(timesteps)) as bar:
            for i, (t, lower) in enumerate(zip(timesteps, [*timesteps[1:], -1], strict=True)):
                prompt_embeds = empty if i < retraced else text if i in guided else text[-1:]
                apart = i < injected and (i >= retraced or noise_blend > 0)  # or else x itself is the source still
                rows, prompts = ([source], [empty]) if apart else ([], [])
                rows, prompts = torch.cat([*rows, *[x] * len(prompt_embeds)]), torch.cat([*prompts, prompt_embeds])
                with self._injecting(clip.injected_layers if apart else (), len(rows)):
                    prediction = self._predict(rows, t, prompts)
                if apart:
                    source, prediction = self._step(source, prediction[:1], t, lower), prediction[1:]
                if len(prediction) == 2:
                    unconditional, conditional = prediction.chunk(2)
                    prediction = unconditional + guidance * (conditional - unconditional)
                x = self._step(x, prediction, t, lower)
                source = source if apart else x
                if callback_on_step_end is not None:
                    x = callback_on_step_end(self, i, t, {"latents": x}).get("latents", x)
                bar.update()
        frames = x if output_type == "latent" else self._decode(x, output_type)
        self.maybe_free_model_hooks()
        return TunedVideoOutput(frames) if return_dict else (frames,)

    def _timesteps(self, steps, start=None):
        """Return the scheduler's timesteps, descending, or as many from `start` down."""
        self.scheduler.set_timesteps(steps)
        grid = np.minimum(self.scheduler.timesteps.cpu().numpy(), self.scheduler.config.num_train_timesteps - 1)
        if start is not None and start != grid[0]:
            grid = np.linspace(start, min(start, grid[-1]), steps).round().astype(int)
        return np.unique(grid)[::-1].tolist()

    def _step(self, x, prediction, t, lower):
        """Take a DDIM step with eta 0, from timestep `t` to `lower`; below zero lies the schedule's end."""
        alpha = float(self.scheduler.alphas_cumprod[t])
        alpha_to = float(self.scheduler.alphas_cumprod[lower] if lower >= 0 else self.scheduler.final_alpha_cumprod)
        if self.scheduler.config.prediction_type == "v_prediction":
            noise, clean = alpha**0.5 * prediction + (1 - alpha) ** 0.5 * x, alpha**0.5 * x - (1 - alpha) ** 0.5 * prediction
        else:
            noise, clean = prediction, (x - (1 - alpha) ** 0.5 * prediction) / alpha**0.5
        return alpha_to**0.5 * clean + (1 - alpha_to) ** 0.5 * noise

    def _encode(self, prompts):
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        for prompt in prompts:
            if len(self.tokenizer(prompt).input_ids) > length:
                logger.warning(f"the end of a prompt is not read, {length} tokens are: {prompt!r}")
        return self.text_encoder(tokens.input_ids.to(self._execution_device)).last_hidden_state

    @contextmanager
    def _injecting(self, layers, rows):
        """Have `layers` give the first row's output for all rows, while the context is open."""

        def first_row(output):
            if isinstance(output, tuple):  # a block's
                return tuple(map(first_row, output))
            return output[: len(output) // rows].repeat(rows, *[1] * (output.dim() - 1))

        def share(module, args, output):
            return first_row(output)

        hooks = [self.unet.get_submodule(name).register_forward_hook(share) for name in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _predict(self, x, t, text):
        """Return the network's prediction for `[B, 4, F, h, w]` and as many prompts, in fp32."""
        frames = x.transpose(1, 2).to(self.unet.dtype).flatten(0, 1)  # [B·F, 4, h, w]
        out = self.unet(frames, t, text, return_dict=False)[0]
        return out.float().unflatten(0, (len(text), -1)).transpose(1, 2)

    def _decode(self, x, output_type):
        frames = x[0].transpose(0, 1).to(self.vae.dtype) / self.vae.config.scaling_factor
        pixels = torch.cat([self.vae.decode(chunk).sample for chunk in frames.split(_FRAMES_AT_ONCE)])
        return self.video_processor.postprocess_video(pixels.float().transpose(0, 1)[None], output_type=output_type)
