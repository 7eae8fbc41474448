"""SAM2VideoX: structure-preserving motion distilled from a tracker (Fei et al., arXiv 2512.11792), as reconstructed by its method card.

`gram_flow`: what is compared, how two directions become one target, and the losses (card 3 and 4). No code of the paper exists, and of
its equations only parts are known: every choice is an option with the card's default.
"""
