"""VideoJAM's experiments: its arms, the joint model by the protocol, on pretrained snapshots, and looking at it."""
