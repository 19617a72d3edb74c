"""Extractions that end early: failures, signals, kills, and what a resumed run writes."""
