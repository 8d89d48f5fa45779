"""More queued jobs than one has the patience to submit: copies of those that were, in MLflow's database, while it is down."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path

_TABLES = ("runs", "tags", "params")


def fill(database: Path, total: int) -> int:
    """Copy queued runs until there are so many; how many were made."""
    with closing(sqlite3.connect(database)) as db, db:
        queued = [row[0] for row in db.execute("SELECT run_uuid FROM runs WHERE status = 'SCHEDULED'")]
        new = [(uuid.uuid4().hex, old) for old in islice(cycle(queued), max(0, total - len(queued)))]
        for table in _TABLES:
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            values = [{"run_uuid": "?1", "artifact_uri": "replace(artifact_uri, ?2, ?1)"}.get(name, name) for name in columns]
            db.executemany(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {table} WHERE run_uuid = ?2", new
            )
        return len(new)
