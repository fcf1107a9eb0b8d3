"""What containers start with: each entry writes the configuration of one program and then becomes it.

    secrets ─► a volume per role ─► settings ─► configuration in memory (/tmp) ─► the program itself

Run manually, inside a container: `python -m containers`; see docker-compose.yml.
"""
