"""Pipeline definitions: the model, the YAML reader that names every fault with its place, SQL expressions."""
