"""longscale: how far beyond its training length does a DNA language model hold?

The rooms, in the order in which data passes (imports point backwards along this line only):
genome -> variants -> tasks -> attention -> models -> training -> evaluation -> report.
"""

__version__ = "0.1.0"
