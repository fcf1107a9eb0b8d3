"""What containers start with: each module writes the configuration of one program and then becomes it.

    secrets ─► a volume per role ─► settings ─► configuration in memory (/tmp) ─► the program itself

By hand, inside a container: `python -m containers.<module> …`; see docker-compose.yml.
"""
