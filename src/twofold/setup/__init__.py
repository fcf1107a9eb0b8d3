"""Set-up of a fresh machine: jars through Ivy and Go-built servers.

    ivy.xml                  ─► Ivy ─► sha256 ─► <cache>/jars/{spark,kafka}
    servers.txt, go-server   ─► go install    ─► <cache>/bin/{minio,statsd_exporter}

Everything is cached per user and put in place by a rename, so a half-made download is never taken for a whole one.
"""
