"""A report that a notebook shows as its page."""

from __future__ import annotations

from typing import Any

from featurestore.notebook.facts import framed
from featurestore.report.measuring import StoreReport, report_on
from featurestore.report.page.rendering import render_page
from featurestore.store.store import Store


class ShownReport(StoreReport):
    """A :class:`~featurestore.report.measuring.StoreReport` that a notebook shows as its page."""

    def _repr_html_(self) -> str:
        return framed(render_page(self), f"Report of {self.store}")


def shown_report(store: Store, **options: Any) -> ShownReport:
    """Return what :func:`~featurestore.report.measuring.report_on` finds, for a notebook.

    Parameters
    ----------
    store : Store
    **options
        As :func:`~featurestore.report.measuring.report_on` takes them.
    """
    return ShownReport(**vars(report_on(store, **options)))
