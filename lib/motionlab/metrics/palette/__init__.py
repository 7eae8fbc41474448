"""The palette reader: limb positions, colour and place of a picture, read without a network.

The world paints every limb in a shade of its own, so a limb is where its shade is. The reader is independent of every
learned evaluator and therefore its check: both must agree in direction before either judges a claim.

How a pixel is read. A pixel whose colour lies within `PURE` of a known one, with a neighbour of the same kind, is pure.
Every other pixel is taken as a mix of two colours (antialiased edges are exactly that): the pair of its neighbours'
colours, or of a neighbour's colour and a shade, that explains it best shares the pixel in proportion. A colour that no
pair explains within `CUTOFF` is foreign and belongs to nothing.

Limits. One subject per picture. Limbs of one shade whose parents differ (a dog's ear and tail) are told apart by what
they hang on; limbs of one shade on one parent (four of a wheel's spokes, a snake's coils) are read as one, under the
joined name `spoke1+spoke2+spoke3+spoke4`.
"""
from motionlab.metrics.palette.limbs import Limb, limb_links, limb_table
from motionlab.metrics.palette.pixels import CUTOFF, background_colours
from motionlab.metrics.palette.reader import LimbReading, read_attributes, read_limbs, subject_mask

__all__ = ["CUTOFF", "Limb", "LimbReading", "background_colours", "limb_links", "limb_table", "read_attributes", "read_limbs",
    "subject_mask"]
