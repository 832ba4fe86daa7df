"""The tables that are derived from bronze: silver, gold and feature tables.

Each is declared once, as a pure function of frames.
"""

from city.tables.model import Column, Source, Table, TableError

__all__ = ["Column", "Source", "Table", "TableError"]
