"""The palette reader: limb positions of a subject whose look is known, read without a network.

The world paints every limb in a shade of its own, so a limb is where its shade is. On renders the reader is nearly exact. On
what comes out of a codec it is an illustration that judges nothing, because colours move limbs for it (16 dev reconstructions,
structure error 0.342; what one limb late by half a cycle adds on 32 others is 0.067, of one stuck 0.015):

    change without motion            palette   learned readers
    contrast x 0.9                   +0.121    0.000,  0.000
    blotches of 12 levels            +0.100    +0.018, +0.026
    10 levels brighter               +0.079    +0.005, +0.010
    blur of 0.7 px                   +0.016    0.000,  -0.003

A repair would have to stay below a tenth of such a limb, 0.007. Tried and left: gain and offset per channel, fitted to the known
colours of the clip (contrast +0.073, brightness +0.082), and a smooth field of residuals on top of it (contrast +0.039, brightness
+0.080, blotches +0.44): bright colours saturate, and blotches pull shades that are 35 levels apart across one another. Nor can it
meet claim testbed.K3 by reading colours better: limbs of originals are read to 0.14 px, and a blur of 0.5 px alone, with every
colour right, makes it 0.24 px, 1.6 times as much where 1.2 is asked (0.67 px on reconstructions).

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
from motionlab.metrics.palette.reader import LimbReading, read_limbs, subject_mask

__all__ = ["CUTOFF", "Limb", "LimbReading", "background_colours", "limb_links", "limb_table", "read_limbs", "subject_mask"]
