"""Set-up of a fresh machine: jars through Ivy, Go-built servers, and a check of what must be there already.

    requirements/jars.toml ─► Ivy ─► sha256 ─► <cache>/jars/{spark,kafka}
    Go module proxy        ─► go install    ─► <cache>/bin/{minio,statsd_exporter}

Everything is cached per user and put in place by a rename, so a half-made download is never taken for a whole one.
Only the standard library is used here: parts of it run before the virtual environment exists.
"""
