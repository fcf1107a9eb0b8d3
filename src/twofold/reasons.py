"""Why records are rejected, as a short fixed list: a reason is a sentence that quotes the record, its kind a word."""

from __future__ import annotations

PATTERNS = {
    "empty": r"^empty: ",
    "too_large": r"^too large: ",
    "encoding": r"^unknown encoding: ",
    "not_json": r"^not JSON: ",
    "missing": r"^missing ",
    "wrong_type": r"^\S+ is not an? ",
    "out_of_range": r"^\S+ out of range: ",
    "not_allowed": r"^\S+ not one of ",
    "pattern": r"^\S+ does not match ",
    "too_long": r"^\S+ too long: ",
    "future": r"^from the future: ",
}
"""Kind → how a reason begins; only its first fault counts, as what follows may quote anything."""
KINDS = tuple(PATTERNS)
