"""What Ray's processes, and those that start ours on Ray, have in their environment beside the settings."""

ENVIRONMENT = {
    # JSON lines, in files that do not fill the disk.
    "RAY_LOGGING_CONFIG_ENCODING": "JSON",
    "RAY_ROTATION_MAX_BYTES": str(64 << 20),
    "RAY_ROTATION_BACKUP_COUNT": "3",
    # OpenMP's threads wait for each other spinning, for long. Where something else has the core of one of them, the others keep
    # theirs busy with it, and a step of a tenth of a second takes several seconds.
    "GOMP_SPINCOUNT": "1000",
}
