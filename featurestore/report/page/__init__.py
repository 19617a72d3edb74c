"""The page of a report: its plots, its pieces of HTML, its sections."""
