"""Boards drawn without Grafana: what is shown of data, of none, and of hostile labels."""

from __future__ import annotations

from math import nan

from monitoring.boards import BOARDS
from monitoring.boards.draw import Series, color, page
from monitoring.boards.model import GREEN, ORANGE, RED, Panel, Query, upto

AGE = Panel("Age", "How old.", "s", (Query("x"),), "stat", upto(60, 300), GREEN)


def test_colours_follow_the_thresholds() -> None:
    assert [color(AGE, value) for value in (0, 59.9, 60, 300, nan)] == [GREEN, GREEN, ORANGE, RED, GREEN]


def test_every_board_is_drawn_with_data_and_without() -> None:
    hostile = Series("<script>", {"alertname": "<b>"}, [(0.0, 1.0), (5.0, nan), (10.0, 3.0)])
    for board in BOARDS:
        empty = page(board, {panel.title: [] for panel in board.panels}, (0, 10), "")
        full = page(board, {panel.title: [hostile, hostile] for panel in board.panels}, (0, 10), "")
        assert empty.count("class=none") == len(board.panels)
        assert "class=none" not in full
        assert "<script>" not in full
        assert "<td><b>" not in full
        assert "nan," not in full
