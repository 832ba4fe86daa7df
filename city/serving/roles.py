"""Kinds of experiments, and the roles of the versions in them."""

from collections.abc import Mapping
from typing import Literal

Kind = Literal["canary", "ab", "shadow"]
Role = Literal["champion", "canary", "b", "shadow", "control"]
"""The part that a version plays in an answer. The control is the champion, run on the same input as a canary; its
answer is only recorded."""
ROLES: Mapping[Kind, Role] = {"canary": "canary", "ab": "b", "shadow": "shadow"}
BACKGROUND_ROLES: frozenset[str] = frozenset({"shadow", "control"})
"""Roles whose answers are recorded and not returned."""
