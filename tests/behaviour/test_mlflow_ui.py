"""The MLflow UI, behind the gateway's door, shows a tuned clip and plays its videos, in a real browser."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import HttpCredentials, Page, expect, sync_playwright

import tav
from registry.jobs import JobStore
from registry.objects import ObjectStore
from registry.pictures import contact_sheet
from registry.registration import VersionInfo
from registry.settings import RegistrySettings
from registry.versions import VersionStore
from registry.videos import VideoStore
from services.api.keys import KeyFile, make_key
from tav.bases import OFFLINE
from tav_client.schemas import ClipInfo, TuningJob, TuningJobCreate, Video, VideoCreate
from tests.api.conftest import Gateway

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "examples" / "clips" / "red-ball-grass.mp4"
SCREENSHOT = ROOT / "out" / "mlflow-ui.png"
PROMPT = "a blue ball rolling on grass"
SECONDS = 60


@pytest.fixture(scope="module")
def settings(registry_settings: RegistrySettings) -> RegistrySettings:
    return registry_settings.model_copy(update={"experiment": f"ui-{uuid.uuid4().hex[:8]}"})


@pytest.fixture(scope="module")
def tuned(settings: RegistrySettings, tmp_path_factory: pytest.TempPathFactory) -> TuningJob:
    """A clip that was tuned on the shipped base, as a tuner keeps it."""
    jobs, stored = JobStore(settings), ObjectStore(settings).put_clip(CLIP)
    info = ClipInfo(uri=stored.uri, sha256=stored.sha256, width=256, height=256, num_frames=24, fps=8.0)
    caption = "a red ball rolling on grass"
    job = jobs.create(TuningJobCreate(caption=caption), info, "offline", f"ball-{uuid.uuid4().hex[:8]}")
    jobs.start(job.id, 1)
    base, folder = tav.Base.load(str(OFFLINE)), tmp_path_factory.mktemp("tuned") / "version"
    folder.mkdir()
    clip = tav.Clip.read(CLIP, caption=caption, **base.clip_config(num_frames=4).model_dump(include={"num_frames", "size"}))
    losses: list[float] = []
    config = base.tune_config(steps=4)
    delta = tav.tune(base, clip, config, on_step=lambda progress: losses.append(progress.loss or 0.0))
    jobs.log_metrics(job.id, [("loss", loss, step, int(job.created_at * 1000)) for step, loss in enumerate(losses)])
    delta.save(folder / "delta.safetensors")
    tav.invert(base, clip, delta, base.invert_config(num_inference_steps=5)).save(folder / "latents.safetensors")
    (folder / "config.json").write_text("{}")
    made = VersionInfo("offline", base.fingerprint, caption, len(clip.frames), clip.size)
    jobs.log_sheet(job.id, "source", clip.frames)
    jobs.log_sheet(job.id, "sample 1", clip.frames)
    jobs.succeed(job.id, VersionStore(settings).register(job, folder, made).version)
    return jobs.get(job.id)


@pytest.fixture(scope="module")
def video(settings: RegistrySettings, tuned: TuningJob, tmp_path_factory: pytest.TempPathFactory) -> Video:
    """An edit of it, as the gateway keeps it."""
    versions, videos, base = VersionStore(settings), VideoStore(settings), tav.Base.load(str(OFFLINE))
    version = versions.resolve(tuned.model)
    folder = versions.fetch(version, tmp_path_factory.mktemp("fetched"))
    delta, latents = tav.Delta.load(folder / "delta.safetensors"), tav.Latents.load(folder / "latents.safetensors")
    kept = videos.create(VideoCreate(model=tuned.model, prompt=PROMPT, num_inference_steps=5), version)
    videos.start(kept.id)
    config = base.sample_config(num_inference_steps=5)
    drawn = tav.sample(base, PROMPT, delta=delta, latents=latents, config=config)
    metrics = {"latency_seconds": 1.0, "steps": 5}
    seconds, sheet = len(drawn.frames) / drawn.fps, contact_sheet(drawn.frames)
    return videos.complete(kept.id, drawn.encode(), seconds, version.size, metrics, sheet=sheet)


@pytest.fixture
def operator(tmp_path: Path, settings: RegistrySettings) -> tuple[str, str]:
    """An operator's key, and the file that has its digest."""
    key, record = make_key("staff", operator=True)
    KeyFile(str(tmp_path / "keys.json"), settings).write({record.id: record})
    return key, str(tmp_path / "keys.json")


@pytest.fixture
def door(start_gateway: Callable[..., Gateway], operator: tuple[str, str], settings: RegistrySettings) -> str:
    """Where the gateway shows MLflow to whoever has that key."""
    gateway = start_gateway(api_keys_file=operator[1], experiment=settings.experiment)
    return f"{str(gateway.http.base_url).rstrip('/')}/mlflow"


@pytest.fixture
def page(operator: tuple[str, str]) -> Iterator[Page]:
    """An empty page of a headless Chromium, whose user gives the key as the password."""
    program = shutil.which("chromium")
    assert program, "there is no Chromium: run tools/system-packages.sh python3 browser"
    with sync_playwright() as playwright:
        # its own sandbox does not start where the tests run as root
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        user: HttpCredentials = {"username": "anybody", "password": operator[0]}
        made = browser.new_page(viewport={"width": 1400, "height": 800}, http_credentials=user)
        made.set_default_timeout(SECONDS * 1000)
        yield made
        browser.close()


def test_the_mlflow_ui_finds_a_tuned_clip_below_it_its_video_and_plays_it(
    page: Page, door: str, settings: RegistrySettings, tuned: TuningJob, video: Video
) -> None:
    expect.set_options(timeout=SECONDS * 1000)
    page.goto(door)  # its start page leads to the runs
    page.get_by_role("link", name=tuned.model).first.click()
    expect(page.get_by_test_id("runs-header")).to_have_text(tuned.model)
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("source.mp4").first.click()
    assert played(page)["width"] == 256
    page.get_by_role("tab", name="Overview").click()
    page.get_by_role("link", name=PROMPT).first.click()
    expect(page.get_by_test_id("runs-header")).to_have_text(PROMPT)
    for shown in ("num_inference_steps", "latency_seconds", f"{tuned.model}/1"):
        expect(page.get_by_text(shown, exact=True).first).to_be_visible()
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("video.mp4").first.click()
    found = played(page)
    assert (found["width"], found["height"]) == tuple(map(int, str(video.size).split("x")))
    assert found["seconds"] == pytest.approx(float(str(video.seconds)), abs=0.2)
    SCREENSHOT.parent.mkdir(exist_ok=True)
    page.screenshot(path=str(SCREENSHOT))
    assert SCREENSHOT.stat().st_size > 10_000


def test_a_jobs_link_opens_its_run_among_those_of_training(
    page: Page, door: str, settings: RegistrySettings, tuned: TuningJob
) -> None:
    page.goto(str(tuned.mlflow_url).replace(settings.mlflow_tracking_uri, door))
    expect(page.get_by_test_id("runs-header")).to_have_text(tuned.model)
    expect(page.get_by_role("link", name="Model registry")).to_be_visible()  # the view of chats' traces has none
    expect(page.get_by_role("link", name="Prompts")).to_have_count(0)


def test_runs_are_compared_by_pictures_of_their_videos(page: Page, door: str, tuned: TuningJob) -> None:
    _, _, place = str(tuned.mlflow_url).partition("#")
    runs = place.partition("?")[0].rpartition("/")[0]
    page.goto(f"{door}/#{runs}?workflowType=machine_learning&compareRunsMode=CHART")
    for key in ("source", "sample 1"):
        expect(page.get_by_text(key, exact=True).first).to_be_visible()
    page.wait_for_function(
        "() => [...document.images].filter(i => i.src.includes('images') && i.naturalWidth > 100).length >= 2"
    )


def test_a_models_page_says_what_it_is_and_leads_to_its_run(page: Page, door: str, tuned: TuningJob) -> None:
    page.goto(f"{door}/#/models/{tuned.model}")
    expect(page.get_by_text("a red ball rolling on grass").first).to_be_visible()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="this run").first.click()
    expect(opened.value.get_by_test_id("runs-header")).to_have_text(tuned.model)


def played(page: Page) -> dict[str, float]:
    """Size and duration of the page's video, once the browser has decoded it to its end."""
    page.wait_for_selector("video")
    script = """async () => {
        const video = document.querySelector('video');
        video.muted = true;
        if (!video.ended) {
            const end = new Promise((done, failed) => { video.onended = done; video.onerror = () => failed(video.error) });
            await video.play();
            await end;
        }
        return {width: video.videoWidth, height: video.videoHeight, seconds: video.duration, state: video.readyState};
    }"""
    found: dict[str, float] = page.evaluate(script)
    assert found["state"] >= 2  # HAVE_CURRENT_DATA
    return found
