"""A job's metrics as curves."""

from __future__ import annotations

from math import isfinite

from mlflow.entities import Metric

from registry.errors import NotFound
from registry.settings import RegistrySettings
from registry.tracking import Runs, connect, mlflow_errors
from tav_client.schemas import JobMetrics, MetricPoint


class MetricStore:
    """Metrics of tuning jobs, as the tuners logged them. Methods block."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._runs = Runs(settings, "tuning", "job")
        self._client = connect(settings)

    def get(self, job_id: str, max_points: int) -> JobMetrics:
        """Return every metric of a job in order of steps, evenly thinned to `max_points` of which the last is the last value.

        An attempt that resumes repeats some steps: of one step the value that was logged last counts.

        Raises:
            NotFound: there is no such job.
        """
        names = sorted(self._runs.get(job_id).data.metrics)
        with mlflow_errors(self._settings, NotFound("job", job_id)):
            histories = {name: self._client.get_metric_history(job_id, name) for name in names}
        return JobMetrics(id=job_id, data={name: _thin(_points(history), max_points) for name, history in histories.items()})


def _points(history: list[Metric]) -> list[MetricPoint]:
    latest = {metric.step: metric for metric in sorted(history, key=lambda metric: metric.timestamp)}
    return [
        MetricPoint(step=step, value=metric.value if isfinite(metric.value) else None, timestamp=metric.timestamp / 1000)
        for step, metric in sorted(latest.items())
    ]


def _thin(points: list[MetricPoint], most: int) -> list[MetricPoint]:
    if len(points) <= most:
        return points
    last = len(points) - 1
    return [points[round(i * last / (most - 1))] if most > 1 else points[last] for i in range(most)]
