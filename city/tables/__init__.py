"""What is derived from bronze: silver, gold and feature tables, declared once, as pure functions of frames."""

from city.tables.model import Column, Source, Table, TableError

__all__ = ["Column", "Source", "Table", "TableError"]
