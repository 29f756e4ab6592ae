"""A project as one folder or tar for a machine without network, and the way back."""

from tl_flows.offline.making import Made, make
from tl_flows.offline.restoring import Restored, restore

__all__ = ["Made", "Restored", "make", "restore"]
